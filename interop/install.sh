#!/bin/bash
# Installs what the interop lab needs: the peers and terminal clients from Debian,
# the Python client libraries from Debian, the JavaScript ones from npm.
#
# Idempotent, and quick when everything is there. Debian's packages start their
# daemons when they are installed; a policy-rc.d forbids that while apt runs, for
# the lab starts its own, in its own network namespaces, with its own configuration.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lock=/run/lock/parley-interop-install.lock

debs=(
  iproute2 tmux ca-certificates          # the lab itself
  prosody lua-unbound lua-dbi-sqlite3    # peer
  ejabberd erlang-p1-sqlite3             # peer
  python3-matrix-nio                     # client: nio
  python3-slixmpp                        # client: slixmpp
  poezio                                 # client in a terminal
  profanity                              # client in a terminal
  go-sendxmpp                            # client for scripts
  chromium libnss3-tools                 # a browser for converse.js, and its store of authorities
  gajim xvfb dbus util-linux              # client on a desktop, and a display and a bus for it
)

missing=()
installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${binary:Package}\n' | sed -n 's/^ii *\([^:]*\).*/\1/p')
for deb in "${debs[@]}"; do
  grep -qxF "$deb" <<<"$installed" || missing+=("$deb")
done

node_major() { node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p'; }
if [ -z "$(node_major)" ]; then missing+=(nodejs); fi
if ! command -v npm >/dev/null; then missing+=(npm); fi

js=$here/drivers/js
stamp=$js/node_modules/.parley-lock
npm_current() { cmp -s "$js/package-lock.json" "$stamp"; }

if [ ${#missing[@]} -eq 0 ] && npm_current; then exit 0; fi

if [ "$(id -u)" != 0 ]; then
  echo "interop/install.sh: must be root to install: ${missing[*]:-npm packages}" >&2
  exit 1
fi

# One installer at a time; who waited finds the work done.
exec 9>"$lock"
flock 9

if [ ${#missing[@]} -ne 0 ]; then
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\n# parley interop lab: no daemon starts by being installed\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q update
  apt-get -q install -y --no-install-recommends "${missing[@]}"
fi

if [ "$(node_major)" -lt 20 ]; then
  echo "interop/install.sh: node $(node --version) is too old: matrix-js-sdk needs 20 or later" >&2
  exit 1
fi
if ! npm_current; then
  (cd "$js" && npm ci --ignore-scripts --no-audit --no-fund)
  cp "$js/package-lock.json" "$stamp"
fi
