#!/bin/bash
# The control plane of a cluster on this machine, in network and mount namespaces of its own, and then its nodes.
# Environment: WORK (an empty folder), BIN (kube-apiserver ... kubectl), IMAGES (archives for the nodes), NODES.
# Started by `cargo xtask e2e` with `unshare --net --mount --propagation private`. Says UP on its last line and waits.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
. "$here/lib.sh"
export PATH=$BIN:$PATH KUBECONFIG=$WORK/admin.conf
SERVER=172.30.0.254

join control
mkdir -p "$WORK"/{etcd,certs,log}
echo $$ > "$WORK/pid"

ip link set lo up
ip link add lan type bridge
ip address add $SERVER/24 dev lan
ip link set lan up
# Whoever listens on every address finds its own by the default route.
ip route add default via $SERVER dev lan
sysctl -qw net.ipv4.ip_forward=1

openssl genrsa -out "$WORK/accounts.key" 2048 2> /dev/null
token=$(openssl rand -hex 16)
echo "$token,admin,admin,\"system:masters\"" > "$WORK/tokens.csv"
cat > "$KUBECONFIG" <<END
apiVersion: v1
kind: Config
clusters: [{ name: fsi-e2e, cluster: { server: "https://$SERVER:6443", insecure-skip-tls-verify: true } }]
users: [{ name: admin, user: { token: $token } }]
contexts: [{ name: fsi-e2e, context: { cluster: fsi-e2e, user: admin } }]
current-context: fsi-e2e
END
chmod 600 "$WORK/tokens.csv" "$KUBECONFIG"

etcd --data-dir "$WORK/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 > "$WORK/log/etcd.log" 2>&1 &
kube-apiserver --etcd-servers=http://127.0.0.1:2379 --cert-dir="$WORK/certs" --advertise-address=$SERVER --secure-port=6443 \
  --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$WORK/accounts.key" \
  --service-account-signing-key-file="$WORK/accounts.key" --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC \
  --token-auth-file="$WORK/tokens.csv" --allow-privileged=true --kubelet-preferred-address-types=InternalIP > "$WORK/log/kube-apiserver.log" 2>&1 &
until_true 60 kubectl get --raw /readyz
kube-controller-manager --kubeconfig="$KUBECONFIG" --service-account-private-key-file="$WORK/accounts.key" --use-service-account-credentials=true \
  --root-ca-file="$WORK/certs/apiserver.crt" --leader-elect=false > "$WORK/log/kube-controller-manager.log" 2>&1 &
kube-scheduler --kubeconfig="$KUBECONFIG" --leader-elect=false > "$WORK/log/kube-scheduler.log" 2>&1 &

for n in $(seq "$NODES"); do
  mkdir -p "$WORK/node-$n"
  N=$n "$here/node.sh" > "$WORK/node-$n/node.log" 2>&1 &
done
for n in $(seq "$NODES"); do plug "$n"; done
for n in $(seq "$NODES"); do
  kubectl wait --for=create "node/node-$n" --timeout=120s
  kubectl wait --for=condition=Ready "node/node-$n" --timeout=120s
  until_true 180 test -e "$WORK/node-$n/imported"
done
echo UP
sleep infinity
