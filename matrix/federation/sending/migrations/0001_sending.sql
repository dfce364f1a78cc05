-- What is owed to other Matrix servers. Times are in milliseconds.

-- Events of ours in shared rooms, until every server of the room has them.
CREATE TABLE sending_events (
  conv     TEXT NOT NULL,
  feed     BIGINT NOT NULL,
  origin   TEXT NOT NULL,   -- the domain of ours that sends it
  event_id TEXT NOT NULL,
  since    BIGINT NOT NULL,
  PRIMARY KEY (conv, feed)
) WITHOUT ROWID;

-- Which servers are owed a room's events: those with a feed number above since,
-- up to until, which is 2^63-1 as long as the server is in the room.
CREATE TABLE sending_peers (
  conv  TEXT NOT NULL,
  dest  TEXT NOT NULL,
  since BIGINT NOT NULL,
  until BIGINT NOT NULL,
  PRIMARY KEY (conv, dest, since)
) WITHOUT ROWID;
CREATE INDEX sending_peers_dest ON sending_peers (dest, conv);

-- How far a server has come in a room: all up to acked it has, or it can ask for
-- it; of all up to told the senders know that it did not arrive in time.
CREATE TABLE sending_acks (
  dest   TEXT NOT NULL,
  origin TEXT NOT NULL,
  conv   TEXT NOT NULL,
  acked  BIGINT NOT NULL,
  told   BIGINT NOT NULL,
  PRIMARY KEY (dest, origin, conv)
) WITHOUT ROWID;
CREATE INDEX sending_acks_conv ON sending_acks (conv);

-- Events that are owed to one server.
CREATE TABLE sending_singles (
  id       BIGINT PRIMARY KEY, -- a feed number
  origin   TEXT NOT NULL,
  dest     TEXT NOT NULL,
  event_id TEXT NOT NULL,
  since    BIGINT NOT NULL
);
CREATE INDEX sending_singles_dest ON sending_singles (dest, origin, id);

-- Ephemeral data that must arrive.
CREATE TABLE sending_edus (
  id      BIGINT PRIMARY KEY, -- a feed number
  origin  TEXT NOT NULL,
  dest    TEXT NOT NULL,
  type    TEXT NOT NULL,
  content BLOB NOT NULL,
  since   BIGINT NOT NULL
);
CREATE INDEX sending_edus_dest ON sending_edus (dest, origin, id);

-- Servers that do not answer: since when, how often they were tried, and when
-- they are tried again.
CREATE TABLE sending_silent (
  dest   TEXT NOT NULL,
  origin TEXT NOT NULL,
  since  BIGINT NOT NULL,
  tries  BIGINT NOT NULL,
  next   BIGINT NOT NULL,
  PRIMARY KEY (dest, origin)
) WITHOUT ROWID;
