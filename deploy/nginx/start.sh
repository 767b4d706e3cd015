#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# nginx in the foreground, and watch-replicas.sh beside it.
#
#   REPLICAS="host:port host:port" start.sh DIRECTORY
#
# DIRECTORY is made, and holds the configuration, the pid and temporary files: it must be writable.
#
# LISTEN         what nginx listens on: the arguments of its `listen` (8080)
# NGINX_COMMAND  the command (nginx)
# and those of watch-replicas.sh
set -eu

directory=${1:?"usage: REPLICAS=\"host:port ...\" $0 DIRECTORY"}
source=$(dirname "$0")
mkdir -p "$directory/temp"
cp "$source"/*.conf "$directory/"
echo "listen ${LISTEN:-8080};" >"$directory/listen.conf"
rm -f "$directory/replicas.conf"
rm -rf "$directory/failures"
"$source/watch-replicas.sh" "$directory" once
"$source/watch-replicas.sh" "$directory" &
watcher=$!

"${NGINX_COMMAND:-nginx}" -p "$directory" -c "$directory/nginx.conf" -g "daemon off;" &
nginx=$!
# SIGQUIT lets nginx finish the requests that it has.
trap 'kill -QUIT "$nginx"' TERM INT QUIT
status=0
wait "$nginx" || status=$?
# A signal ends the wait, not nginx.
while kill -0 "$nginx" 2>/dev/null; do
    status=0
    wait "$nginx" || status=$?
done
kill "$watcher" 2>/dev/null || true
exit "$status"
