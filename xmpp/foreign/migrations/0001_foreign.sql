-- Rooms of other servers that accounts here are in or are invited to. wanted
-- says that the account is to be in the room whenever it can be reached.
CREATE TABLE foreign_rooms (
  account  TEXT NOT NULL,
  room     TEXT NOT NULL, -- bare JID
  conv     TEXT NOT NULL,
  nick     TEXT NOT NULL,
  password TEXT NOT NULL,
  wanted   BIGINT NOT NULL,
  PRIMARY KEY (account, room)
);
CREATE UNIQUE INDEX foreign_rooms_conv ON foreign_rooms (conv);

-- Who has which occupant-id (XEP-0421), so that she stays the same person under
-- another nick.
CREATE TABLE foreign_occupants (
  conv     TEXT NOT NULL,
  occupant TEXT NOT NULL,
  address  TEXT NOT NULL,
  PRIMARY KEY (conv, occupant)
);
