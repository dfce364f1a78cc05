-- How far the stream of an account's device list has got, and which device the
-- last change was about. No row: at its beginning.
CREATE TABLE mxd_streams (
	account  TEXT PRIMARY KEY,
	stream   BIGINT NOT NULL,
	device   TEXT NOT NULL
);

-- Lists of users of other servers; conv is the anchor. seen are the numbers of
-- the last updates, as a JSON list: those to which a further update may refer.
-- asked is when the list was fetched last, in milliseconds since 1970. Keys that
-- there are not are empty.
CREATE TABLE mxd_lists (
	address  TEXT PRIMARY KEY,
	conv     TEXT NOT NULL,
	state    BIGINT NOT NULL,
	seen     TEXT NOT NULL,
	asked    BIGINT NOT NULL,
	master   BLOB NOT NULL,
	self     BLOB NOT NULL
);
CREATE INDEX mxd_lists_conv ON mxd_lists (conv);
CREATE INDEX mxd_lists_state ON mxd_lists (state, address);

CREATE TABLE mxd_devices (
	address  TEXT NOT NULL,
	device   TEXT NOT NULL,
	name     TEXT NOT NULL,
	keys     BLOB NOT NULL,
	PRIMARY KEY (address, device)
);

-- To-device messages that have come, by what their server calls them; domain is
-- the one of ours that they are for.
CREATE TABLE mxd_messages (
	origin   TEXT NOT NULL,
	domain   TEXT NOT NULL,
	id       TEXT NOT NULL,
	made     BIGINT NOT NULL,
	PRIMARY KEY (origin, domain, id)
);
CREATE INDEX mxd_messages_made ON mxd_messages (origin, made);
