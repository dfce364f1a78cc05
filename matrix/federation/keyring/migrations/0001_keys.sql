-- What other servers publish of their keys. Moments are milliseconds since 1970.

-- The last answer that each server gave itself, for asking again and for those
-- who ask this server as a notary.
CREATE TABLE fed_key_answers (
  server      TEXT PRIMARY KEY,
  fetched     BIGINT NOT NULL,
  valid_until BIGINT NOT NULL,
  json        BLOB NOT NULL -- canonical, with the server's signatures
);

-- Every key that a server was ever seen with. A signature made with it holds
-- for what is not from after valid_until.
CREATE TABLE fed_keys (
  server      TEXT NOT NULL,
  key_id      TEXT NOT NULL,
  public      BLOB NOT NULL,
  valid_until BIGINT NOT NULL,
  PRIMARY KEY (server, key_id)
) WITHOUT ROWID;
