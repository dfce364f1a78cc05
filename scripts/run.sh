#!/bin/bash
# Serves on this machine: makes a server for localhost with the accounts alice
# and bob if there is none, says how to connect, and runs it. Their passwords
# are made at random and kept in a file that only you can read.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
parley=bin/parley
export PARLEY_DIR=${PARLEY_DIR:-$PWD/parley-data}
secrets=$PARLEY_DIR/accounts.txt

if [ ! -e "$PARLEY_DIR/parley.toml" ]; then
	"$parley" init --domain localhost >/dev/null
fi
# Each account is written down as soon as it is made, so that a run that was
# broken off is taken up again by the next.
touch "$secrets"
chmod 600 "$secrets"
if grep -q '"localhost"' "$PARLEY_DIR/parley.toml"; then
	for name in alice bob; do
		if ! grep -q "^$name@localhost " "$secrets"; then
			if "$parley" account list | grep -q "^$name@localhost "; then
				password=$("$parley" account passwd "$name@localhost" --generate)
			else
				password=$("$parley" account add "$name@localhost" --generate)
			fi
			echo "$name@localhost $password" >>"$secrets"
		fi
	done
fi

cat <<END

Parley serves localhost from $PARLEY_DIR.

Accounts and passwords (also in $secrets):
$(sed 's/^/  /; s/ \([^ ]*\)$/   \1/' "$secrets")

Matrix
  Element Web and Desktop  Homeserver: http://localhost:8008   User: alice
XMPP (the certificate is self-signed: accept it, or trust
$PARLEY_DIR/tls/self-signed.pem)
  Gajim, Dino              Account: bob@localhost
  profanity                /connect bob@localhost server 127.0.0.1 tls trust
  others                   STARTTLS on port 5222, direct TLS on port 5223

alice's and bob's address for each other is alice@localhost and bob@localhost
(@alice:localhost and @bob:localhost in Matrix). Stop the server with Ctrl-C.

END
exec "$parley" serve
