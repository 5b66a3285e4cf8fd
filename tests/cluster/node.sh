#!/bin/bash
# One node of the cluster, started by control.sh with its environment and N: containerd, kubelet and kube-proxy with a network, folders and
# cgroups of their own, so that its agent sees the containers of this node alone.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
. "$here/lib.sh"
me=$WORK/node-$N

if [ -z "${INSIDE:-}" ]; then
  join "node-$N"
  exec env INSIDE=1 unshare --net --mount --cgroup --propagation private "$0"
fi
own_hierarchies
# Kubelet and runtime are beside the pods, not above them.
TOP=daemons join own

mkdir -p "$me"/{var-lib/kubelet,var-log,cni}
mount --bind "$me/var-lib" /var/lib
mount --bind "$me/var-log" /var/log
mount -t tmpfs tmpfs /run
mount --make-rshared /
mkdir -p /run/containerd /run/fsi /run/disk
# A disk of its own for a local volume.
mount -t tmpfs -o size=256m disk /run/disk
echo $$ > "$me/pid"
until_true 30 test -e "$me/plugged"
ip link set lo up
ip address add "172.30.0.$N/24" dev eth0
ip link set eth0 up
ip route add default via 172.30.0.254
sysctl -qw net.ipv4.ip_forward=1
for n in $(seq "$NODES"); do
  [ "$n" = "$N" ] || ip route add "10.244.$n.0/24" via "172.30.0.$n"
done

cat > "$me/cni/10-pods.conflist" <<END
{ "cniVersion": "0.4.0", "name": "pods", "plugins": [
  { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.244.$N.0/24" }]],
    "routes": [{ "dst": "0.0.0.0/0" }], "dataDir": "$me/cni/addresses" } },
  { "type": "portmap", "capabilities": { "portMappings": true } }, { "type": "loopback" } ] }
END
cat > "$me/containerd.toml" <<END
version = 2
root = "$me/containerd/root"
state = "/run/containerd/state"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true   # root may lack CAP_SYS_RESOURCE
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$me/cni"
END
containerd -c "$me/containerd.toml" > "$me/containerd.log" 2>&1 &
until_true 30 ctr version
# Those of the kubelet's first pods come first.
[ -e "$me/imported" ] || (ctr -n k8s.io images import "$IMAGES"/*pause*.tar && for image in "$IMAGES"/*.tar; do ctr -n k8s.io images import "$image"; done && touch "$me/imported") &

cat > "$me/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
authentication: { anonymous: { enabled: true }, webhook: { enabled: false } }
authorization: { mode: AlwaysAllow }
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
evictionHard: { memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1% }
imageGCHighThresholdPercent: 100
resolvConf: ""
syncFrequency: 10s
END
cat > "$me/kubelet.sh" <<END
exec kubelet --config="$me/kubelet.yaml" --kubeconfig="$KUBECONFIG" --node-ip="172.30.0.$N" --hostname-override="node-$N" --cert-dir="$me/certs"
END
# One that was killed is started again, as on any node.
(while :; do bash "$me/kubelet.sh" >> "$me/kubelet.log" 2>&1 || sleep 1; done) &
cat > "$me/proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: { kubeconfig: $KUBECONFIG }
mode: nftables
# These sysctls may be read-only.
conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
clusterCIDR: 10.244.0.0/16
hostnameOverride: node-$N
END
kube-proxy --config="$me/proxy.yaml" > "$me/proxy.log" 2>&1 &
wait
