#!/bin/bash
# Follows docs/getting-started/hosts.md and the guides database.md, udp-and-dns.md and ssh.md in three containers, each a Debian with systemd and one
# package: a relay with a public address, and two peers behind a NAT each. The commands are those of the pages, in their order. Arguments: the base
# system, the directory of the packages, the folder of the pages.
set -eu
base=$1 dist=$2 start=$3/getting-started/hosts.md guide=$3/guides/database.md udp=$3/guides/udp-and-dns.md ssh=$3/guides/ssh.md
work=$(mktemp -d)
n=guide$$
log() { echo "$*" >&2; }

cleanup() {
    set +e
    for host in relay east west; do [ -s "$work/$host.pid" ] && kill "$(cat "$work/$host.pid")"; done
    wait
    for net in internet relay natE natW east west; do ip netns delete "$n-$net"; done 2> /dev/null
    rm -rf "$work"
}
trap cleanup EXIT

# The addresses of the page: the relay has 203.0.113.10.
for net in internet relay natE natW east west; do
    ip netns add "$n-$net"
    ip -n "$n-$net" link set lo up
done
in_net() { ip netns exec "$n-$1" "${@:2}"; }
link() { # one end, its interface and address, the other end, its interface and address
    ip link add "$2" netns "$n-$1" type veth peer name "$5" netns "$n-$4"
    ip -n "$n-$1" addr add "$3" dev "$2" && ip -n "$n-$1" link set "$2" up
    ip -n "$n-$4" addr add "$6" dev "$5" && ip -n "$n-$4" link set "$5" up
}
link internet r 203.0.113.1/24 relay eth0 203.0.113.10/24
link internet e 198.51.100.1/30 natE out 198.51.100.2/30
link internet w 198.51.100.5/30 natW out 198.51.100.6/30
link natE in 10.0.1.1/24 east eth0 10.0.1.2/24
link natW in 10.0.2.1/24 west eth0 10.0.2.2/24
ip -n "$n-relay" route add default via 203.0.113.1
ip -n "$n-natE" route add default via 198.51.100.1
ip -n "$n-natW" route add default via 198.51.100.5
ip -n "$n-east" route add default via 10.0.1.1
ip -n "$n-west" route add default via 10.0.2.1
for net in internet natE natW; do in_net $net sysctl -qw net.ipv4.ip_forward=1; done
for net in natE natW; do
    in_net $net nft -f - << 'END'
table ip nat {
    chain out { type nat hook postrouting priority srcnat; oifname "out" masquerade; }
    chain in { type filter hook forward priority 0; iifname "out" ct state new drop; }
    # As a router does. A packet that is let in here would take the port of the mapping that is still to come.
    chain own { type filter hook input priority 0; iifname "out" ct state new drop; }
}
END
done

boot() { # host, package
    mkdir -p "$work/$1"
    cp "$dist"/"$2"_*.deb "$work/$1/"
    systemd-nspawn --register=no --keep-unit --quiet --volatile=overlay --boot --directory "$base" --machine "$n-$1" \
        --network-namespace-path "/run/netns/$n-$1" --bind "$work/$1:/root/packages" \
        systemd.journald.forward_to_console=no < /dev/null > "$work/$1.console" 2>&1 &
    echo $! > "$work/$1.pid"
}
boot relay relay-node
boot east p2pnode
boot west p2pnode

# Runs a command of a page in a host, in the directory with its package.
on() {
    local host=$1 leader
    shift
    log "$host# $*"
    leader=$(cat "/proc/$(cat "$work/$host.pid")/task/"*/children | cut -d ' ' -f 1)
    nsenter --target "$leader" --mount --uts --ipc --net --pid --root env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        bash -c "cd /root/packages; $*" < /dev/null
}
until_on() { until on "$@" > /dev/null 2>&1; do sleep 0.5; done; }
for host in relay east west; do until_on $host systemctl is-system-running --wait '|' grep -qE "'running|degraded'"; done

# A command of a page: the first line in its blocks that begins with these words.
of() {
    local found
    found=$(awk '/^```/ { inside = !inside; next } inside' "$1" | grep -m 1 -F -- "$2") || { log "$1 has no command like: $2"; exit 1; }
    echo "$found"
}

# 1. Install
on relay "$(of "$start" 'apt install ./relay-node_')" --yes
on east "$(of "$start" 'apt install ./p2pnode_')" --yes
on west "$(of "$start" 'apt install ./p2pnode_')" --yes
# 2. Start the relay
on relay "$(of "$start" 'relay-node init')"
on relay "$(of "$start" 'systemctl restart relay-node')"
until_on relay relay-node healthcheck
relay=$(on relay relay-node id)
# 3. Start the peers
for host in east west; do
    init=$(of "$start" 'p2pnode init --relay')
    on $host "${init//12D3KooW.../$relay}"
    on $host "$(of "$start" 'systemctl restart p2pnode')"
    until_on $host p2pnode healthcheck
done
# 4. Dial
id=$(of "$start" 'p2pnode id')
east=$(on east "$id") west=$(on west "$id")
dial=$(of "$start" 'p2pnode dial')
on west "${dial//12D3KooW.../$east}" | tee >(cat >&2) | tail -n 1 | grep -q '^direct after'
# 5. Look at the network
on west "$(of "$start" 'p2pnode netcheck')" >&2

# The database: each client gets its greeting. It listens where the guide says.
ip -n "$n-east" addr add 10.0.3.7/32 dev lo
on east "perl -MIO::Socket::INET -e '
    my \$all = IO::Socket::INET->new(LocalAddr => \"10.0.3.7:5432\", Listen => 5) or die;
    while (my \$client = \$all->accept) { print \$client \"the database\n\"; close \$client }' > /dev/null 2>&1 &"
serve=$(of "$guide" 'p2pnode serve')
on east "${serve//12D3KooW.../$west} > /root/serve 2>&1 &"
until_on east 'grep -q serving /root/serve'
forward=$(of "$guide" 'p2pnode forward')
on west "${forward//12D3KooW.../$east} > /root/forward 2>&1 &"
until_on west 'grep -q listening /root/forward'
on west 'timeout 20 perl -MIO::Socket::INET -e "print IO::Socket::INET->new(PeerAddr => q(127.0.0.1:5432))->getline"' | grep -q '^the database$'
services=$(of "$guide" 'p2pnode services')
on west "${services//12D3KooW.../$east}" | tee >(cat >&2) | grep -q '^db '
on west "$(of "$guide" 'p2pnode status --sessions')" >&2

# The DNS server: it answers each datagram with one.
on east "perl -MIO::Socket::INET -e '
    my \$all = IO::Socket::INET->new(LocalAddr => \"127.0.0.1:53\", Proto => \"udp\") or die;
    while (\$all->recv(my \$query, 512)) { \$all->send(\"answer to \$query\") }' > /dev/null 2>&1 &"
serve=$(of "$udp" 'p2pnode serve')
on east "$serve > /root/serve-udp 2>&1 &"
until_on east 'grep -q serving /root/serve-udp'
forward=$(of "$udp" 'p2pnode forward')
on west "${forward//12D3KooW.../$east} > /root/forward-udp 2>&1 &"
until_on west 'grep -q listening /root/forward-udp'
on west 'timeout 20 perl -MIO::Socket::INET -e "
    my \$s = IO::Socket::INET->new(PeerAddr => q(127.0.0.1:5353), Proto => q(udp)); \$s->send(q(query)); \$s->recv(my \$got, 512); print \$got"' |
    grep -q '^answer to query$'

# The ssh server is Debian's, on west. ssh asks once whether to trust its key; the answer here is yes.
on east 'mkdir -p -m 700 /root/.ssh && ssh-keygen -q -t ed25519 -N "" -f /root/.ssh/id_ed25519 && echo StrictHostKeyChecking accept-new > /root/.ssh/config'
key=$(on east 'cat /root/.ssh/id_ed25519.pub')
on west "mkdir -p -m 700 /root/.ssh && echo '$key' > /root/.ssh/authorized_keys && echo on-west > /root/mark"
until_on west systemctl is-active ssh
serve=$(of "$ssh" 'p2pnode serve')
on west "${serve//12D3KooW.../$east} > /root/serve-ssh 2>&1 &"
until_on west 'grep -q serving /root/serve-ssh'
block() { # of a page, by its kind
    awk -v kind="$2" '/^```/ { inside = ($0 == "```" kind); next } inside' "$1"
}
named=$(block "$ssh" yaml)
on east "cat >> /etc/p2pnode/p2pnode.yaml << 'END'
${named//12D3KooW.../$west}
END"
on east "$(of "$ssh" 'ssh -o ProxyCommand') -- cat mark" | grep -q '^on-west$'
on east "cat >> /root/.ssh/config << 'END'
$(block "$ssh" text)
END"
on east 'ssh west cat mark && ssh west cat < /usr/bin/p2pnode | cmp - /usr/bin/p2pnode' | grep -q '^on-west$'
log 'the pages hold'
