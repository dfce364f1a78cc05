-- The group of the state before an event, 0 where that is not known: other
-- servers ask for it.
ALTER TABLE shared_events ADD COLUMN prior BIGINT NOT NULL DEFAULT 0;
