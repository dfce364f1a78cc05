-- Streams that may be resumed: how many stanzas of the client are on disk.
CREATE TABLE xmpp_streams (
  id      TEXT PRIMARY KEY,
  account TEXT NOT NULL,
  handled BIGINT NOT NULL,
  changed BIGINT NOT NULL -- milliseconds since 1970
);
CREATE INDEX xmpp_streams_changed ON xmpp_streams (changed);

-- Up to which feed number a client of the account has received messages.
CREATE TABLE xmpp_cursors (
  account TEXT PRIMARY KEY,
  feed    BIGINT NOT NULL
);

-- Personal eventing: nodes and their items, the newest with the highest seq.
CREATE TABLE xmpp_pep_nodes (
  account TEXT NOT NULL,
  node    TEXT NOT NULL,
  config  BLOB NOT NULL, -- JSON
  PRIMARY KEY (account, node)
);
CREATE TABLE xmpp_pep_items (
  account   TEXT NOT NULL,
  node      TEXT NOT NULL,
  item      TEXT NOT NULL,
  seq       BIGINT NOT NULL,
  published BIGINT NOT NULL,
  publisher TEXT NOT NULL,
  payload   BLOB NOT NULL,
  PRIMARY KEY (account, node, item)
);
CREATE INDEX xmpp_pep_items_seq ON xmpp_pep_items (account, node, seq);

-- Permissions to upload one file each, which link will then lead to.
CREATE TABLE xmpp_slots (
  secret  TEXT PRIMARY KEY,
  link    TEXT NOT NULL,
  account TEXT NOT NULL,
  name    TEXT NOT NULL,
  size    BIGINT NOT NULL,
  type    TEXT NOT NULL,
  expires BIGINT NOT NULL
);
CREATE INDEX xmpp_slots_expires ON xmpp_slots (expires);
