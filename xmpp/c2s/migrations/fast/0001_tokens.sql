-- Tokens that clients log in with: see XEP-0484. The secret is not here: it is made from the id and a key of the server.
CREATE TABLE xmpp_tokens (
  id        TEXT PRIMARY KEY,
  account   TEXT NOT NULL,
  client    TEXT NOT NULL, -- the installation, as it says itself
  mechanism TEXT NOT NULL,
  password  TEXT NOT NULL, -- the salt of the password that was in force: with another one, the token is void
  issued    BIGINT NOT NULL, -- milliseconds since 1970
  expires   BIGINT NOT NULL,
  uses      BIGINT NOT NULL,
  count     BIGINT NOT NULL -- the highest that the client has told, -1 before the first
);
CREATE INDEX xmpp_tokens_client ON xmpp_tokens (account, client);
CREATE INDEX xmpp_tokens_expires ON xmpp_tokens (expires);
