-- The sessions of other servers in rooms here, so that they stay in the room
-- when this server restarts. away is when the session left, 0 while it is in:
-- a grace later the person's membership ends.
CREATE TABLE muc_visitors (
  conv TEXT NOT NULL,
  jid  TEXT NOT NULL,
  who  TEXT NOT NULL,
  away BIGINT NOT NULL,
  PRIMARY KEY (conv, jid)
);
CREATE INDEX muc_visitors_away ON muc_visitors (away);
