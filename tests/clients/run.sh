#!/usr/bin/env bash
# Runs the client programs of this folder against a gateway.
#
#     tests/clients/run.sh target/release/ringway
#
# Starts `ringway demo` for the tours and `ringway serve`, once per generation of the protocol, for
# the programs that are a business process themselves; each on free ports, each ended with SIGTERM,
# after which it must leave with 0. Prints one line per check and at the end `N passed, N failed`.
set -uo pipefail
ringway=$(realpath "${1:?usage: run.sh PATH-OF-RINGWAY}")
cd "$(dirname "$0")"
./setup.sh || { echo "setup.sh failed"; exit 1; }

work=$(mktemp -d)
gateway=
passed=0
failed=0
skipped=0
trap '[[ -n $gateway ]] && kill -KILL "$gateway" 2>/dev/null; rm -rf "$work"' EXIT

pass() { echo "ok   $1"; ((passed += 1)); }
fail() { echo "FAIL $1"; ((failed += 1)); }

# Ports that nobody listens on: client, worker, task, admin, both of the connmix API, IM over
# WebSocket and TCP, connmix clients.
choose_ports() {
    # Their owner has to be gone before the gateway binds them, hence no process substitution.
    read -r client worker task admin centre api im_ws im chat <<<"$(python3 - <<'PYTHON'
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(9)]
print(*(s.getsockname()[1] for s in sockets))
PYTHON
    )"
}

# Asks /readyz with what bash has on board.
is_ready() {
    local status
    status=$(
        exec 2>/dev/null
        exec 3<>"/dev/tcp/127.0.0.1/$admin" || exit
        printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
        read -r -t 1 line <&3 && echo "$line"
    )
    [[ $status == *" 200 "* ]] || return 1
    # Clients of the demo need its business process as well.
    [[ $name != demo ]] || grep -q 'demo business registered' "$work/demo.log"
}

# start_gateway NAME ARGUMENTS...: starts it and waits until it says that it is ready.
start_gateway() {
    name=$1
    shift
    "$ringway" "$@" 2>"$work/$name.log" &
    gateway=$!
    for _ in {1..100}; do
        kill -0 "$gateway" 2>/dev/null || break
        if is_ready; then
            return 0
        fi
        sleep 0.1
    done
    fail "$name starts and becomes ready"
    cat "$work/$name.log"
    kill -KILL "$gateway" 2>/dev/null
    wait "$gateway" 2>/dev/null
    gateway=
    return 1
}

# stop_gateway: SIGTERM, and an orderly end within ten seconds.
stop_gateway() {
    kill -TERM "$gateway" 2>/dev/null
    for _ in {1..100}; do
        [[ -n $(jobs -rp) ]] || break
        sleep 0.1
    done
    kill -KILL "$gateway" 2>/dev/null
    wait "$gateway" 2>/dev/null
    local code=$?
    gateway=
    if ((code == 0)); then
        pass "$name: SIGTERM, exit code 0"
    else
        fail "$name: SIGTERM, exit code $code"
        tail -n 20 "$work/$name.log"
    fi
}

# program FILE COMMAND...: counts its lines; it must end with 0. Skipped if setup.sh, which says why,
# did not make the file.
program() {
    if [[ ! -e $1 ]]; then
        echo "SKIP ${*:2}"
        ((skipped += 1))
        return
    fi
    shift
    echo "== $*"
    "$@" >"$work/out" 2>"$work/err"
    local code=$?
    cat "$work/out"
    ((passed += $(grep -c '^ok ' "$work/out")))
    if ((code != 0)); then
        ((failed += 1))
        cat "$work/err"
        grep -q '^FAIL' "$work/out" || echo "FAIL $* ended with $code"
        tail -n 20 "$work/$name.log"
    fi
}

configuration() { # GENERATION
    cat <<TOML
[[listener]]
bind = "127.0.0.1:$client"
routes = [{ path = "/netsvr", protocol = "netsvr" }]

[[listener]]
bind = "127.0.0.1:$worker"
protocol = "netsvr-worker"

[[listener]]
bind = "127.0.0.1:$task"
protocol = "netsvr-task"

[netsvr]
generation = $1

[netsvr.customer]
compression_level = 1

[netsvr.limit]
on_open = 10000
on_message = 50000

[admin]
bind = "127.0.0.1:$admin"

[runtime.drain]
delay = "0s"
spread = "0s"
TOML
}

choose_ports
export RINGWAY_LISTENER__0__BIND=127.0.0.1:$client RINGWAY_LISTENER__1__BIND=127.0.0.1:$worker
export RINGWAY_LISTENER__2__BIND=127.0.0.1:$task RINGWAY_ADMIN__BIND=127.0.0.1:$admin
export RINGWAY_LISTENER__3__BIND=127.0.0.1:$centre RINGWAY_LISTENER__4__BIND=127.0.0.1:$api
export RINGWAY_LISTENER__5__BIND=127.0.0.1:$im_ws RINGWAY_LISTENER__6__BIND=127.0.0.1:$im
export RINGWAY_LISTENER__7__BIND=127.0.0.1:$chat
export RINGWAY_XXIM__PUSH__BIND=127.0.0.1:0
if start_gateway demo demo; then
    url=ws://127.0.0.1:$client/netsvr
    program .cache/venv .cache/venv/bin/python python/tour.py "$url"
    program .cache/venv .cache/venv/bin/python python/connmix_api.py "http://127.0.0.1:$api" "$url" \
        "ws://127.0.0.1:$chat/chat"
    program .cache/venv .cache/venv/bin/python python/im_tour.py "127.0.0.1:$im"
    program node/node_modules node node/im.mjs "ws://127.0.0.1:$im_ws/im"
    xxim=("ws://127.0.0.1:$im_ws/ws" "http://127.0.0.1:$admin/demo/xxim.pub.pem")
    program .cache/venv .cache/venv/bin/python python/xxim.py "${xxim[@]}"
    program node/node_modules node node/xxim.mjs "${xxim[@]}"
    program node/node_modules node node/tour.mjs "$url"
    program node/node_modules node node/browserlike.mjs "$url"
    program node/node_modules node node/connmix.mjs "ws://127.0.0.1:$chat/chat" \
        "http://127.0.0.1:$api"
    stop_gateway
fi
unset "${!RINGWAY_@}"

for generation in 6 5; do
    choose_ports
    configuration "$generation" >"$work/generation$generation.toml"
    if start_gateway "generation$generation" serve --config "$work/generation$generation.toml"; then
        arguments=(-ws "ws://127.0.0.1:$client/netsvr" -worker "127.0.0.1:$worker")
        ((generation == 6)) && arguments+=(-task "127.0.0.1:$task")
        command=.cache/generation$generation
        program "$command" "$command" "${arguments[@]}"
        stop_gateway
    fi
done

((skipped == 0)) || echo "$skipped programs skipped"
echo "$passed passed, $failed failed"
((failed == 0))
