-- Rooms that were entered with part of their members: what is to be asked for, and whom.
CREATE TABLE joining_partial (
  conv     TEXT PRIMARY KEY,
  event_id TEXT NOT NULL, -- the join: the state before it is what is missing
  origin   TEXT NOT NULL, -- our domain that asks
  servers  TEXT NOT NULL  -- a JSON list, the one that let us in first
);
