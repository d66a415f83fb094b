#!/usr/bin/env bash
# Builds Kubernetes 1.20.2 from Debian's source package: tests/kubernetes/build.sh FOLDER; 10 minutes and 6 GB.
# Needs the packages golang-1.19-go, rsync and curl; nothing is fetched but the source, everything else is vendored.
# The folder then holds kube-apiserver, kube-controller-manager, kube-scheduler, kubelet and kube-proxy.
set -euo pipefail
mkdir -p "$1"
target=$(cd "$1" && pwd)
name=kubernetes_1.20.5+really1.20.2.orig.tar.gz
pool=http://deb.debian.org/debian/pool/main/k/kubernetes
sum=b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

source=$work/go/src/k8s.io/kubernetes
mkdir -p "$source"
curl --fail --location --silent --show-error --output "$work/$name" "$pool/${name//+/%2B}"
echo "$sum  $work/$name" | sha256sum --check --quiet
tar --extract --gzip --file "$work/$name" --directory "$source" --strip-components 1

cat > "$work/version" <<'VERSION'
KUBE_GIT_COMMIT='debian'
KUBE_GIT_TREE_STATE='clean'
KUBE_GIT_VERSION='v1.20.2'
KUBE_GIT_MAJOR='1'
KUBE_GIT_MINOR='20'
VERSION

export PATH=/usr/lib/go-1.19/bin:$PATH HOME=$work GOPATH=$work/go GOCACHE=$work/cache GOPROXY=off CGO_ENABLED=0
export GOFLAGS="-p=$(nproc)" KUBE_GIT_VERSION_FILE=$work/version
cd "$source"
for program in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do
  make WHAT="cmd/$program"
  cp "_output/bin/$program" "$target/"
done
