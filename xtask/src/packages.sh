#!/bin/bash
# Runs as a service inside the container. The first check that does not hold ends it, so none is negated with `!`.
exec > /outcome/log 2>&1
set -ex
services="p2pnode relay-node"

apt-get install --yes --no-install-recommends /root/p2pnode_*.deb /root/relay-node_*.deb < /dev/null
# Installed is not started: the configuration comes first.
for service in $services; do [ "$(systemctl is-active $service)" = inactive ]; done

systemctl start $services
systemctl is-active $services
for service in $services; do
    $service status
    $service config check --config /etc/$service/$service.yaml
    # No user of its own, no privilege.
    pid=$(systemctl show --property MainPID --value $service)
    [ "$(stat --format %u /proc/$pid)" != 0 ]
    grep -q '^NoNewPrivs:.*1' /proc/$pid/status
    test -s /var/lib/private/$service/identity.key
done
first=$(p2pnode status | head -n 1)

systemctl reload $services
systemctl is-active $services

# The watchdog ends a process that does not answer, and the service comes back with the same key.
kill -STOP "$(systemctl show --property MainPID --value p2pnode)"
until [ "$(systemctl show --property NRestarts --value p2pnode)" = 1 ]; do sleep 1; done
until systemctl is-active p2pnode; do sleep 1; done
[ "$(p2pnode status | head -n 1)" = "$first" ]

systemctl stop $services
for service in $services; do [ "$(systemctl show --property Result --value $service)" = success ]; done
apt-get purge --yes $services < /dev/null
for service in $services; do
    [ "$(ls -d /etc/$service/$service.yaml /var/lib/private/$service 2> /dev/null)" = "" ]
done
touch /outcome/passed
