-- Moments are milliseconds since 1970. Addresses are core.Address.String.

CREATE TABLE settings (
  key   TEXT PRIMARY KEY,
  value BLOB NOT NULL
);

CREATE TABLE accounts (
  address     TEXT PRIMARY KEY,
  created     BIGINT NOT NULL,
  disabled    BIGINT NOT NULL,
  strangers   TEXT NOT NULL,
  credentials BLOB NOT NULL, -- JSON of hub.Credentials; empty once deleted
  deleted     BIGINT NOT NULL
);

CREATE TABLE profiles (
  address TEXT PRIMARY KEY,
  profile BLOB NOT NULL -- JSON of core.Profile
);

CREATE TABLE conversations (
  id        TEXT PRIMARY KEY,
  shape     TEXT NOT NULL,
  authority TEXT NOT NULL,
  creator   TEXT NOT NULL,
  created   BIGINT NOT NULL,
  address   TEXT NOT NULL,
  temporary BIGINT NOT NULL,
  public    BIGINT NOT NULL
);
CREATE INDEX conversations_public ON conversations (public, address);

CREATE TABLE conversation_natives (
  network TEXT NOT NULL,
  native  TEXT NOT NULL,
  conv    TEXT NOT NULL,
  PRIMARY KEY (network, native)
);
CREATE INDEX conversation_natives_conv ON conversation_natives (conv);

CREATE TABLE room_addresses (
  address TEXT PRIMARY KEY,
  conv    TEXT NOT NULL,
  creator TEXT NOT NULL
);
CREATE INDEX room_addresses_conv ON room_addresses (conv);

CREATE TABLE events (
  id             TEXT PRIMARY KEY,
  conv           TEXT NOT NULL,
  pos            BIGINT NOT NULL,
  feed           BIGINT NOT NULL,
  sender         TEXT NOT NULL,
  accepted       BIGINT NOT NULL,
  origin         BIGINT NOT NULL,
  kind           TEXT NOT NULL,
  target         TEXT NOT NULL,
  thread         TEXT NOT NULL,
  content        BLOB NOT NULL, -- of core.EncodeContent
  native_network TEXT NOT NULL,
  native_type    TEXT NOT NULL,
  native         BLOB NOT NULL,
  retracted      TEXT NOT NULL
);
CREATE UNIQUE INDEX events_pos ON events (conv, pos);
CREATE UNIQUE INDEX events_feed ON events (feed);
CREATE INDEX events_conv_feed ON events (conv, feed);
CREATE INDEX events_target ON events (target, kind, pos);
CREATE INDEX events_thread ON events (thread, pos);

CREATE TABLE event_aliases (
  network TEXT NOT NULL,
  kind    TEXT NOT NULL,
  scope   TEXT NOT NULL,
  key     TEXT NOT NULL,
  digest  TEXT NOT NULL,
  event   TEXT NOT NULL,
  PRIMARY KEY (network, kind, scope, key, digest)
);
CREATE INDEX event_aliases_event ON event_aliases (event);

CREATE TABLE state (
  conv  TEXT NOT NULL,
  kind  TEXT NOT NULL,
  key   TEXT NOT NULL,
  event TEXT NOT NULL,
  PRIMARY KEY (conv, kind, key)
);

CREATE TABLE places (
  address  TEXT NOT NULL,
  conv     TEXT NOT NULL,
  standing TEXT NOT NULL,
  nick     TEXT NOT NULL,
  pos      BIGINT NOT NULL,
  feed     BIGINT NOT NULL,
  PRIMARY KEY (address, conv)
);

-- A stay with ended = 0 goes on.
CREATE TABLE stays (
  conv    TEXT NOT NULL,
  address TEXT NOT NULL,
  began   BIGINT NOT NULL,
  invited BIGINT NOT NULL,
  joined  BIGINT NOT NULL,
  ended   BIGINT NOT NULL,
  PRIMARY KEY (conv, address, began)
);

-- a sorts before b. The newest that has not ended is the current one.
CREATE TABLE directs (
  conv   TEXT PRIMARY KEY,
  a      TEXT NOT NULL,
  b      TEXT NOT NULL,
  opened BIGINT NOT NULL,
  ended  BIGINT NOT NULL
);
CREATE INDEX directs_a ON directs (a, b, opened);
CREATE INDEX directs_b ON directs (b);

CREATE TABLE affiliations (
  conv       TEXT NOT NULL,
  address    TEXT NOT NULL,
  granted_by TEXT NOT NULL,
  PRIMARY KEY (conv, address)
);

CREATE TABLE contacts (
  account TEXT NOT NULL,
  address TEXT NOT NULL,
  contact BLOB NOT NULL, -- JSON of core.Contact
  feed    BIGINT NOT NULL,
  PRIMARY KEY (account, address)
);
CREATE INDEX contacts_address ON contacts (address);

CREATE TABLE blocks (
  account TEXT NOT NULL,
  address TEXT NOT NULL,
  PRIMARY KEY (account, address)
);

CREATE TABLE data (
  account TEXT NOT NULL,
  conv    TEXT NOT NULL,
  type    TEXT NOT NULL,
  data    BLOB NOT NULL,
  deleted BIGINT NOT NULL,
  feed    BIGINT NOT NULL,
  PRIMARY KEY (account, conv, type)
);
CREATE INDEX data_feed ON data (account, feed);

CREATE TABLE readings (
  conv    TEXT NOT NULL,
  who     TEXT NOT NULL,
  stage   TEXT NOT NULL,
  thread  TEXT NOT NULL,
  private BIGINT NOT NULL,
  event   TEXT NOT NULL,
  pos     BIGINT NOT NULL,
  at      BIGINT NOT NULL,
  feed    BIGINT NOT NULL,
  PRIMARY KEY (conv, who, stage, thread, private)
);
CREATE INDEX readings_feed ON readings (conv, feed);

CREATE TABLE reports (
  event     TEXT NOT NULL,
  addressee TEXT NOT NULL,
  sender    TEXT NOT NULL,
  stage     TEXT NOT NULL,
  reason    TEXT NOT NULL,
  losses    BLOB NOT NULL, -- JSON of []core.Loss
  feed      BIGINT NOT NULL,
  PRIMARY KEY (event, addressee)
);
CREATE INDEX reports_sender ON reports (sender, feed);

CREATE TABLE media (
  id      TEXT PRIMARY KEY,
  owner   TEXT NOT NULL,
  created BIGINT NOT NULL,
  file    BLOB NOT NULL, -- JSON of core.File
  size    BIGINT NOT NULL,
  secret  TEXT NOT NULL,
  stored  BIGINT NOT NULL
);
CREATE INDEX media_owner ON media (owner);
CREATE INDEX media_secret ON media (secret);

CREATE TABLE media_links (
  secret TEXT PRIMARY KEY,
  media  TEXT NOT NULL,
  conv   TEXT NOT NULL,
  event  TEXT NOT NULL
);
CREATE INDEX media_links_event ON media_links (event);
CREATE INDEX media_links_media ON media_links (media);

CREATE TABLE outbox (
  id       BIGINT PRIMARY KEY,
  network  TEXT NOT NULL,
  dest     TEXT NOT NULL,
  parcel   BLOB NOT NULL, -- JSON of hub.Parcel
  attempts BIGINT NOT NULL,
  next     BIGINT NOT NULL
);
CREATE INDEX outbox_dest ON outbox (network, dest, id);
