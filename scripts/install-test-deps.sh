#!/bin/bash
# Installs what `make test` needs beside Go, from Debian's packages and npm.
#
# Quick when all is there. Debian starts the daemons that it installs; a
# policy-rc.d forbids that while apt runs, because the tests start their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# PostgreSQL for the store's tests; gcc for the race detector.
debs=(postgresql gcc libc6-dev)

missing=()
for deb in "${debs[@]}"; do
	status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$deb" 2>/dev/null || true)
	[[ $status == ii* ]] || missing+=("$deb")
done
if [ ${#missing[@]} -ne 0 ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "install-test-deps.sh: must be root to install: ${missing[*]}" >&2
		exit 1
	fi
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\n# parley tests: no daemon starts by being installed\nexit 101\n' >"$policy"
		chmod 755 "$policy"
		trap 'rm -f "$policy"' EXIT
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get -q update
	apt-get -q install -y --no-install-recommends "${missing[@]}"
	if [ -n "$(trap -p EXIT)" ]; then rm -f "$policy"; trap - EXIT; fi
fi

# The peers and clients of the interop tests.
interop/install.sh
