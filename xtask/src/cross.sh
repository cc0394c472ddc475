# Runs Cargo in a Debian whose backports have a Rust with targets for other architectures. Arguments: the Debian's directory, which is
# made if it is not there; the workspace; the directory of the results; Cargo's home; Debian's names of the architecture and of a
# compiler for it; then the arguments of Cargo. The caller has given this a mount namespace of its own.
set -eu
root=$1 workspace=$2 results=$3 home=$4 architecture=$5 gcc=$6
shift 6
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }

if [ ! -e "$root/ready-$architecture" ]; then
    rm -rf "$root"
    debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev trixie "$root"
    sed 's/ trixie / trixie-backports /' "$root/etc/apt/sources.list" > "$root/etc/apt/sources.list.d/backports.list"
    inside dpkg --add-architecture "$architecture"
    inside apt-get update
    inside apt-get install --yes --no-install-recommends --target-release trixie-backports cargo "libstd-rust-dev:$architecture"
    inside apt-get install --yes --no-install-recommends "$gcc" "libc6-dev:$architecture"
    touch "$root/ready-$architecture"
fi

for folder in "$workspace" "$results" "$home/registry"; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
done
mount -o remount,bind,ro "$root$home/registry"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
linkers=$(env | grep '^CARGO_TARGET_.*_LINKER=' || true)
inside $linkers CARGO_HOME="$home" CARGO_TARGET_DIR="$results" RUSTFLAGS="$RUSTFLAGS" \
    sh -c 'cd "$1" && shift && exec cargo "$@"' sh "$workspace" "$@"
