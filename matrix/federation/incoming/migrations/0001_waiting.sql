-- Events of other Matrix servers that cannot be judged yet.
CREATE TABLE incoming_waiting (
  event_id TEXT PRIMARY KEY,
  conv     TEXT NOT NULL,
  origin   TEXT NOT NULL,   -- the server that sent it
  checked  BIGINT NOT NULL, -- 0: its sender's key could not be got
  depth    BIGINT NOT NULL,
  tries    BIGINT NOT NULL,
  next     BIGINT NOT NULL, -- milliseconds since 1970: not to be tried before
  json     BLOB NOT NULL
);
CREATE INDEX incoming_waiting_conv ON incoming_waiting (conv, next);
CREATE INDEX incoming_waiting_origin ON incoming_waiting (origin);
