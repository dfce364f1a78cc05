#!/bin/bash
# Takes a lab down when its owner is gone, in whatever way it went.
#
#   janitor.sh watch ID DIR [keep]   prints "ready", waits for end of file on standard
#                                    input (the owner closed it, or died), then cleans up
#   janitor.sh sweep                 cleans up after labs whose janitor was killed too
#
# A lab is: network namespaces parley-ID-*, /etc/netns/parley-ID-*, the processes in
# those namespaces, the directory DIR, and /run/parley-lab/ID, which names DIR and is
# locked for as long as the janitor lives.
set -u
state=/run/parley-lab

clean() { # ID DIR KEEP
  local ns pids
  for ns in $(ip netns list | awk '{print $1}' | grep "^parley-$1-"); do
    for _ in 1 2 3 4 5; do
      pids=$(ip netns pids "$ns" 2>/dev/null) || break
      [ -n "$pids" ] || break
      kill -KILL $pids 2>/dev/null
      sleep 0.1
    done
    ip netns delete "$ns"
    rm -rf "/etc/netns/$ns"
  done
  [ -n "$3" ] || rm -rf "$2"
  rm -f "$state/$1"
}

mkdir -p "$state"
case $1 in
watch)
  exec 9>"$state/$2"
  flock 9
  printf '%s\n' "$3" >&9
  echo ready
  cat >/dev/null
  clean "$2" "$3" "${4:-}"
  ;;
sweep)
  for file in "$state"/*; do
    [ -s "$file" ] || continue
    exec 9<"$file"
    if flock --nonblock 9; then
      clean "$(basename "$file")" "$(cat "$file")" ""
    fi
    exec 9<&-
  done
  ;;
esac
