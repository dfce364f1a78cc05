-- Rows that belong to Matrix clients and to nobody else. Accounts are core
-- addresses ("local:alice@example.org"); moments are milliseconds since 1970.

CREATE TABLE mxc_devices (
	account  TEXT NOT NULL,
	device   TEXT NOT NULL,
	name     TEXT NOT NULL,
	created  BIGINT NOT NULL,
	seen     BIGINT NOT NULL,
	seen_ip  TEXT NOT NULL,
	PRIMARY KEY (account, device)
);

-- Access and refresh tokens, by SHA-256. Those of one pair were given out
-- together. As long as none of a pair was used, its parent is the pair that it
-- renews and that works as well.
CREATE TABLE mxc_tokens (
	hash     BLOB PRIMARY KEY,
	account  TEXT NOT NULL,
	device   TEXT NOT NULL,
	refresh  BIGINT NOT NULL,
	expires  BIGINT NOT NULL,
	pair     TEXT NOT NULL,
	parent   TEXT NOT NULL
);
CREATE INDEX mxc_tokens_device ON mxc_tokens (account, device);

CREATE TABLE mxc_filters (
	account  TEXT NOT NULL,
	id       BIGINT NOT NULL,
	hash     BLOB NOT NULL,
	filter   BLOB NOT NULL,
	PRIMARY KEY (account, id)
);
CREATE INDEX mxc_filters_hash ON mxc_filters (account, hash);

CREATE TABLE mxc_profile_fields (
	account  TEXT NOT NULL,
	name     TEXT NOT NULL,
	value    BLOB NOT NULL,
	PRIMARY KEY (account, name)
);

CREATE TABLE mxc_pushers (
	account  TEXT NOT NULL,
	app      TEXT NOT NULL,
	pushkey  TEXT NOT NULL,
	device   TEXT NOT NULL,
	pusher   BLOB NOT NULL,
	PRIMARY KEY (account, app, pushkey)
);

-- Messages that wait for a device; feed orders them. sent is the feed number of
-- the sync token with which they were handed over last: the device has them when
-- it comes back with that token.
CREATE TABLE mxc_to_device (
	account  TEXT NOT NULL,
	device   TEXT NOT NULL,
	feed     BIGINT NOT NULL,
	sent     BIGINT NOT NULL,
	sender   TEXT NOT NULL,
	type     TEXT NOT NULL,
	content  BLOB NOT NULL,
	PRIMARY KEY (account, device, feed)
);

-- Transaction IDs of requests that make no event.
CREATE TABLE mxc_txns (
	scope    TEXT NOT NULL,
	txn      TEXT NOT NULL,
	account  TEXT NOT NULL,
	made     BIGINT NOT NULL,
	PRIMARY KEY (scope, txn)
);
CREATE INDEX mxc_txns_made ON mxc_txns (made);

CREATE TABLE mxc_device_keys (
	account  TEXT NOT NULL,
	device   TEXT NOT NULL,
	keys     BLOB NOT NULL,
	PRIMARY KEY (account, device)
);

-- batch is the feed number of the upload: keys go out in that order. A key that
-- was claimed leaves its ID behind, so that an upload that is repeated does not
-- bring it back.
CREATE TABLE mxc_one_time_keys (
	account   TEXT NOT NULL,
	device    TEXT NOT NULL,
	algorithm TEXT NOT NULL,
	id        TEXT NOT NULL,
	batch     BIGINT NOT NULL,
	claimed   BIGINT NOT NULL,
	value     BLOB NOT NULL,
	PRIMARY KEY (account, device, algorithm, id)
);

CREATE TABLE mxc_fallback_keys (
	account   TEXT NOT NULL,
	device    TEXT NOT NULL,
	algorithm TEXT NOT NULL,
	id        TEXT NOT NULL,
	used      BIGINT NOT NULL,
	value     BLOB NOT NULL,
	PRIMARY KEY (account, device, algorithm)
);

-- The cross-signing keys: usage is master, self_signing or user_signing; id is
-- the key's own, without its algorithm.
CREATE TABLE mxc_cross_keys (
	account  TEXT NOT NULL,
	usage    TEXT NOT NULL,
	id       TEXT NOT NULL,
	value    BLOB NOT NULL,
	PRIMARY KEY (account, usage)
);

-- Signatures that were uploaded apart from what they sign: key is a device or
-- the ID of a master key.
CREATE TABLE mxc_key_signatures (
	account    TEXT NOT NULL,
	key        TEXT NOT NULL,
	signer     TEXT NOT NULL,
	signer_key TEXT NOT NULL,
	signature  TEXT NOT NULL,
	PRIMARY KEY (account, key, signer, signer_key)
);

-- When an account's devices or keys last changed.
CREATE TABLE mxc_device_changes (
	account  TEXT PRIMARY KEY,
	feed     BIGINT NOT NULL
);

-- When an account last signed another's key, which its own devices are to see.
CREATE TABLE mxc_signed (
	account  TEXT NOT NULL,
	target   TEXT NOT NULL,
	feed     BIGINT NOT NULL,
	PRIMARY KEY (account, target)
);

CREATE TABLE mxc_backups (
	account   TEXT NOT NULL,
	version   BIGINT NOT NULL,
	algorithm TEXT NOT NULL,
	auth      BLOB NOT NULL,
	etag      BIGINT NOT NULL,
	deleted   BIGINT NOT NULL,
	PRIMARY KEY (account, version)
);

CREATE TABLE mxc_backup_keys (
	account  TEXT NOT NULL,
	version  BIGINT NOT NULL,
	room     TEXT NOT NULL,
	session  TEXT NOT NULL,
	first    BIGINT NOT NULL,
	forwards BIGINT NOT NULL,
	verified BIGINT NOT NULL,
	data     BLOB NOT NULL,
	PRIMARY KEY (account, version, room, session)
);

CREATE TABLE mxc_openid (
	hash     BLOB PRIMARY KEY,
	account  TEXT NOT NULL,
	expires  BIGINT NOT NULL
);
