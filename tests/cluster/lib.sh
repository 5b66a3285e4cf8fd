# What the scripts of the cluster share. Sourced.

# Every process of the cluster is below this cgroup, in each hierarchy: that is how it is found again.
TOP=fsi-e2e

# hierarchies: "TYPE POINT OPTIONS" of each.
hierarchies() { findmnt --raw --noheadings --types cgroup,cgroup2 --output FSTYPE,TARGET,OPTIONS | sort -u -k2,2; }

# join NAME: this shell goes into the cgroup TOP/NAME of every hierarchy.
join() {
  local type point options path
  while read -r type point options; do
    path=$point
    for part in "$TOP" ${1//\// }; do
      if [ "$type" = cgroup2 ]; then
        for controller in $(cat "$path/cgroup.controllers"); do echo "+$controller" > "$path/cgroup.subtree_control" || true; done
      fi
      path=$path/$part
      mkdir -p "$path"
      # A new cpuset has no processors, and takes no process.
      for file in cpuset.cpus cpuset.mems; do
        if [ "$type" = cgroup ] && [ -e "$path/$file" ] && [ -z "$(cat "$path/$file")" ]; then cat "$path/../$file" > "$path/$file"; fi
      done
    done
    echo $$ > "$path/cgroup.procs"
  done < <(hierarchies) 2> /dev/null
}

# own_hierarchies: what is mounted as cgroups shows this shell's cgroup as its root, as on a machine of its own.
own_hierarchies() {
  local type point options list
  list=$(hierarchies)
  while read -r type point options; do
    umount "$point"
    if [ "$type" = cgroup2 ]; then
      mount -t cgroup2 cgroup2 "$point"
    else
      options=$(tr , '\n' <<< "$options" | grep -vxE 'rw|ro|nosuid|nodev|noexec|relatime|noatime|xattr|clone_children|release_agent=.*' | paste -sd, -)
      case $options in name=*) options=none,$options ;; esac
      mount -t cgroup -o "$options" cgroup "$point"
    fi
  done <<< "$list"
}

# until_true SECONDS COMMAND...: tries every half second.
until_true() {
  local tries=$(($1 * 2))
  shift
  for _ in $(seq "$tries"); do
    if "$@" > /dev/null 2>&1; then return 0; fi
    sleep 0.5
  done
  echo "after $((tries / 2)) s still not: $*" >&2
  return 1
}

# plug N: connects a node that has begun with the control plane, in whose network this runs.
plug() {
  until_true 30 test -s "$WORK/node-$1/pid"
  # That of a node which has just ended goes a moment after it.
  until_true 30 ip link add "n$1" type veth peer name eth0 netns "$(cat "$WORK/node-$1/pid")"
  ip link set "n$1" master lan up
  ip route replace "10.244.$1.0/24" via "172.30.0.$1"
  touch "$WORK/node-$1/plugged"
}
