-- Conversations that went on in another room, into which accounts here are
-- being brought.
CREATE TABLE following_moves (
    conv   TEXT PRIMARY KEY,
    event  TEXT NOT NULL,   -- that says so
    native TEXT NOT NULL,   -- the other room's ID
    server TEXT NOT NULL,   -- of who said so
    told   BIGINT NOT NULL, -- 1: the members' clients need not wait any longer
    tries  BIGINT NOT NULL,
    hops   BIGINT NOT NULL, -- rooms that were followed before this one
    next   BIGINT NOT NULL   -- when to try again, milliseconds
);
