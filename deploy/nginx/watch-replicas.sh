#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Active health: asks each replica's /health, and has nginx leave out those that do not answer 200.
#
#   REPLICAS="host:port host:port" watch-replicas.sh DIRECTORY [once]
#
# Writes DIRECTORY/replicas.conf and reloads the nginx whose pid is in DIRECTORY/nginx.pid when something
# has changed: a replica that does not answer, one that drains, one that is back, one that has another
# address. A reload ends no stream. One that is left out is asked when no other can be.
#
# REPLICAS       names and ports
# INTERVAL       seconds between two looks (2)
# FALL           looks in a row that must fail before a replica is left out (2)
# NGINX_COMMAND  the command (nginx)
set -eu

directory=${1:?"usage: REPLICAS=\"host:port ...\" $0 DIRECTORY [once]"}
: "${REPLICAS:?"REPLICAS is empty; allowed: host:port of each replica, separated by spaces"}"
interval=${INTERVAL:-2}
fall=${FALL:-2}
failures=$directory/failures
mkdir -p "$failures"

is_well() {
    curl --silent --output /dev/null --fail --connect-timeout 1 --max-time 2 "http://$1/health"
}

# Names that do not resolve would keep nginx from starting, and a container has another address each time.
address() {
    getent ahostsv4 "${1%:*}" | awk -v port="${1##*:}" 'NR == 1 { print $1 ":" port }'
}

look() {
    for replica in $REPLICAS; do
        count=$(cat "$failures/$replica" 2>/dev/null || echo 0)
        if is_well "$replica"; then
            count=0
        elif [ "$count" -lt "$fall" ]; then
            count=$((count + 1))
        fi
        echo "$count" >"$failures/$replica"
    done
}

write() {
    lines= well=0 known=0
    for replica in $REPLICAS; do
        at=$(address "$replica")
        [ -n "$at" ] || continue
        known=$((known + 1))
        if [ "$(cat "$failures/$replica")" -ge "$fall" ]; then
            lines="$lines$at ill
"
        else
            well=$((well + 1))
            lines="$lines$at well
"
        fi
    done
    if [ "$known" -eq 0 ]; then
        # nginx does not start without a server: one that refuses every connection.
        echo "server 127.0.0.1:9 down;"
        return
    fi
    printf %s "$lines" | while read -r at state; do
        # Passive health beside it: two failures, and nobody is sent there for five seconds. Not `down`, but
        # `backup`: a worker from before a reload keeps its requests and what it knew, and when their
        # replica dies it may send them nowhere but to one that was ill then.
        out=
        [ "$state" = well ] || [ "$well" -eq 0 ] || out=" backup"
        echo "server $at max_fails=2 fail_timeout=5s$out;"
    done
}

update() {
    write >"$directory/replicas.conf.new"
    if cmp -s "$directory/replicas.conf.new" "$directory/replicas.conf"; then
        return
    fi
    mv "$directory/replicas.conf.new" "$directory/replicas.conf"
    echo "watch-replicas: $(tr '\n' ' ' <"$directory/replicas.conf")" >&2
    # The signal that `nginx -s reload` would send, after the check that it would not make.
    if [ -s "$directory/nginx.pid" ] && "${NGINX_COMMAND:-nginx}" -t -q -p "$directory" -c "$directory/nginx.conf"; then
        kill -HUP "$(cat "$directory/nginx.pid")"
    fi
}

look
update
[ "${2:-}" != once ] || exit 0
while sleep "$interval"; do
    look
    update
done
