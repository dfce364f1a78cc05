-- Rooms that other Matrix servers take part in.
CREATE TABLE shared_rooms (
  conv       TEXT PRIMARY KEY,
  room_id    TEXT NOT NULL,
  version    TEXT NOT NULL,
  state      BIGINT NOT NULL, -- group of the current state
  base       BIGINT NOT NULL, -- group of the state in which it was entered, 0 if made here
  partial    TEXT NOT NULL,   -- the server that is to tell the members that are missing, ''
  depth      BIGINT NOT NULL  -- the greatest of the ends
);
CREATE UNIQUE INDEX shared_rooms_id ON shared_rooms (room_id);

-- What is known of events beside what the mirror keeps of those that clients see.
CREATE TABLE shared_events (
  event_id   TEXT PRIMARY KEY,
  conv       TEXT NOT NULL,
  verdict    TEXT NOT NULL,   -- accepted, soft-failed, rejected; cited: known as state or cause only
  state      BIGINT NOT NULL, -- group of the state after it, 0 where that is not known
  via_signed BIGINT NOT NULL, -- 1: signed by the server that let a joiner in
  json       BLOB             -- NULL where the mirror has it
);
CREATE INDEX shared_events_conv ON shared_events (conv, verdict);

-- The events that none follows.
CREATE TABLE shared_ends (
  conv     TEXT NOT NULL,
  event_id TEXT NOT NULL,
  PRIMARY KEY (conv, event_id)
);

-- Events that others follow and that are not known.
CREATE TABLE shared_missing (
  conv     TEXT NOT NULL,
  event_id TEXT NOT NULL,
  follower TEXT NOT NULL,
  PRIMARY KEY (conv, event_id, follower)
);

-- Redactions of events that are yet to come.
CREATE TABLE shared_redactions (
  target   TEXT NOT NULL,
  event_id TEXT NOT NULL,
  PRIMARY KEY (target, event_id)
);

-- States, each as the differences from another (parent), or whole (0). since
-- counts the differences down from the last whole one.
CREATE TABLE shared_groups (
  id     BIGINT PRIMARY KEY,
  conv   TEXT NOT NULL,
  parent BIGINT NOT NULL,
  since  BIGINT NOT NULL
);
CREATE TABLE shared_states (
  grp       BIGINT NOT NULL,
  type      TEXT NOT NULL,
  state_key TEXT NOT NULL,
  event_id  TEXT NOT NULL, -- '' takes the piece away
  PRIMARY KEY (grp, type, state_key)
);
