#!/bin/bash
# Runs every fuzz target of the tree for the time given, one after the other.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
time=${1:-10s}
found=0
for dir in $(git ls-files -co --exclude-standard '*_test.go' | xargs grep -l '^func Fuzz' | xargs -n1 dirname | sort -u); do
	for target in $(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //' | sort -u); do
		found=$((found + 1))
		echo "== $dir $target"
		go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time"
	done
done
[ "$found" -gt 0 ] || { echo "fuzz.sh: found no fuzz target" >&2; exit 1; }
echo "$found fuzz targets passed"
