-- From which position on clients know that a piece of state is in force. It is
-- later than pos for members of a room who became known only after it was entered.
ALTER TABLE mirror_state ADD COLUMN told BIGINT NOT NULL DEFAULT 0;
UPDATE mirror_state SET told = pos;
CREATE INDEX mirror_state_told ON mirror_state (conv, told);
