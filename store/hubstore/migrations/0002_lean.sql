-- What every message costs: one tree for its names, none for what it has not.

DROP INDEX events_target;
DROP INDEX events_thread;
CREATE INDEX events_target ON events (target, kind, pos) WHERE target <> '';
CREATE INDEX events_thread ON events (thread, pos) WHERE thread <> '';

CREATE TABLE event_names (
  network TEXT NOT NULL,
  kind    TEXT NOT NULL,
  scope   TEXT NOT NULL,
  key     TEXT NOT NULL,
  digest  TEXT NOT NULL,
  event   TEXT NOT NULL,
  PRIMARY KEY (network, kind, scope, key, digest)
) WITHOUT ROWID;
INSERT INTO event_names (network, kind, scope, key, digest, event)
  SELECT network, kind, scope, key, digest, event FROM event_aliases;
DROP TABLE event_aliases;
ALTER TABLE event_names RENAME TO event_aliases;
CREATE INDEX event_aliases_event ON event_aliases (event);
