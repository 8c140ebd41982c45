#!/usr/bin/env bash
# Another server under the same load, as an example of `--addr` and `--pid`: the Python library
# `websockets`, which pip fetches into target/other the first time.
#
#   perf/other.sh echo|broadcast [options of ringway-perf]
#
# Then the gateway under the same load, for comparison. The server runs on SERVER_CPU (0). Any other
# server is measured in the same way: start it, pin it, and give its address and process.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=perf/common.sh
source perf/common.sh

[[ $# -ge 1 && ($1 == echo || $1 == broadcast) ]] \
    || die "usage: perf/other.sh echo|broadcast [options of ringway-perf]"
scenario=$1
shift
python=target/other/bin/python
if ! "$python" -c 'import websockets' 2>/dev/null; then
    python3 -m venv target/other || die "python3 -m venv failed: apt-get install python3-venv"
    "$python" -m pip install --quiet websockets
fi
[[ -x $target/release/ringway-perf ]] || build
cpu=${SERVER_CPU:-0}
address_file=$(mktemp)
taskset --cpu-list "$cpu" "$python" perf/other/server.py "$scenario" >"$address_file" &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -f "$address_file"' EXIT
deadline=$((SECONDS + 10))
until [[ -s $address_file ]]; do
    kill -0 "$server" 2>/dev/null || die "the server did not start"
    ((SECONDS < deadline)) || die "the server does not say where it listens"
    sleep 0.1
done
echo "websockets:"
"$target/release/ringway-perf" "$scenario" --addr "$(cat "$address_file")" --pid "$server" \
    --server-cpu "$cpu" "$@"
echo "ringway:"
"$target/release/ringway-perf" "$scenario" --server-cpu "$cpu" "$@"
