-- Services that push to the accounts' clients: see XEP-0357.
CREATE TABLE xmpp_push (
  account  TEXT NOT NULL,
  service  TEXT NOT NULL, -- the JID of the push service
  node     TEXT NOT NULL,
  resource TEXT NOT NULL, -- of the client that asked
  options  BLOB NOT NULL, -- the form to publish with, as XML, or empty
  failures BIGINT NOT NULL, -- in a row
  changed  BIGINT NOT NULL, -- milliseconds since 1970
  PRIMARY KEY (account, service, node)
);
