-- The events of all rooms as Matrix has them.

CREATE TABLE mirror_pdus (
  event_id    TEXT PRIMARY KEY,
  conv        TEXT NOT NULL,
  pos         BIGINT NOT NULL, -- core.Position
  core_id     TEXT NOT NULL,
  type        TEXT NOT NULL,
  state_key   TEXT,            -- NULL where the event is no state
  sender      TEXT NOT NULL,   -- user ID
  version     TEXT NOT NULL,   -- of the room
  replaces    TEXT NOT NULL,   -- the state event before it, or ''
  redacted_by TEXT NOT NULL,   -- event ID, or ''
  device      TEXT NOT NULL,   -- that sent it in a transaction, or ''
  txn         TEXT NOT NULL,
  json        BLOB NOT NULL    -- canonical, redacted if the event is
);
CREATE UNIQUE INDEX mirror_pdus_core ON mirror_pdus (core_id);
CREATE INDEX mirror_pdus_pos ON mirror_pdus (conv, pos);

-- The events that none refers to yet as the one before it: one in a room of
-- ours, several where servers speak at once.
CREATE TABLE mirror_extremities (
  conv     TEXT NOT NULL,
  event_id TEXT NOT NULL,
  depth    BIGINT NOT NULL,
  PRIMARY KEY (conv, event_id)
);

-- The state at every position: an event is in force from pos to before until,
-- which is 2^63-1 for those in force now.
CREATE TABLE mirror_state (
  conv      TEXT NOT NULL,
  type      TEXT NOT NULL,
  state_key TEXT NOT NULL,
  pos       BIGINT NOT NULL,
  until     BIGINT NOT NULL,
  event_id  TEXT NOT NULL,
  PRIMARY KEY (conv, type, state_key, pos)
);
CREATE INDEX mirror_state_until ON mirror_state (conv, until, type, state_key);

-- What events that are not redacted relate to.
CREATE TABLE mirror_relations (
  target   TEXT NOT NULL, -- event ID
  event_id TEXT NOT NULL,
  rel_type TEXT NOT NULL,
  type     TEXT NOT NULL,
  sender   TEXT NOT NULL,
  ts       BIGINT NOT NULL, -- origin_server_ts
  pos      BIGINT NOT NULL,
  own      BIGINT NOT NULL, -- 1: of the target's sender and type, so that it may replace it
  PRIMARY KEY (target, event_id)
);
CREATE INDEX mirror_relations_event ON mirror_relations (event_id);

-- Addresses whose spelling is a hash.
CREATE TABLE mirror_names (
  localpart TEXT PRIMARY KEY,
  address   TEXT NOT NULL
);
