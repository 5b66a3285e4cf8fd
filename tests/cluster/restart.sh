#!/bin/bash
# A node that loses its power and comes back: all its processes, mounts, cgroups, its network and its /run go at once, and what it has on disk
# stays. Environment: that of control.sh, in whose namespaces this runs, and N. Ends when the node has begun anew.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
. "$here/lib.sh"
export PATH=$BIN:$PATH KUBECONFIG=$WORK/admin.conf
me=$WORK/node-$N

cgroups() { hierarchies | while read -r _ point _; do find "$point/$TOP/node-$N" "$@"; done; }
is_dead() {
  local pids
  pids=$(cgroups -name cgroup.procs -exec cat {} + | sort -u)
  [ -z "$pids" ] || { kill -KILL $pids; false; }
}
until_true 30 is_dead
cgroups -depth -type d -exec rmdir {} + 2> /dev/null || true
rm -f "$me/pid" "$me/plugged"
setsid --fork "$here/node.sh" >> "$me/node.log" 2>&1 < /dev/null
plug "$N"
