# Shared by the scripts beside it; not to be run.
# shellcheck shell=bash

# Everything is built in one directory and with the same flags, or comparisons would not be fair.
# Frame pointers make the call graphs; RUSTFLAGS=" " builds without.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR=$target
export RUSTFLAGS=${RUSTFLAGS:--C force-frame-pointers=yes}
load_log=
load_said=
load_pid=

die() {
    echo "$*" >&2
    exit 1
}

# need PROGRAM: it is installed.
need() {
    command -v "$1" >/dev/null && return
    die "$1 is missing: apt-get install linux-perf (Debian), linux-tools-\$(uname -r) (Ubuntu)"
}

# Whether this user may sample threads here, kernel included.
may_record() {
    local probe error
    probe=$(mktemp)
    if ! error=$(perf record --quiet -e cpu-clock -o "$probe" -- true 2>&1); then
        rm -f "$probe"
        echo "$error" >&2
        die "perf may not record here: be root, or sysctl -w kernel.perf_event_paranoid=1; in a" \
            "container it needs CAP_PERFMON, and the seccomp profile must allow perf_event_open"
    fi
    rm -f "$probe"
    if [[ $(cat /proc/sys/kernel/kptr_restrict) != 0 && $EUID != 0 ]]; then
        echo "kernel functions will have no names: sysctl -w kernel.kptr_restrict=0" >&2
    fi
}

# Finds inferno, or installs it beside the build; without it there is no flame graph.
need_inferno() {
    PATH=$PATH:$PWD/target/tools/bin
    command -v inferno-flamegraph >/dev/null && return
    echo "installing inferno into target/tools, once" >&2
    cargo install --quiet --locked --root target/tools inferno && return
    echo "no flame graph: inferno can not be installed (cargo install inferno)" >&2
    return 1
}

# build: gateway, load and floor of the working tree. With BUILD=no those that are there are used.
build() {
    [[ ${BUILD:-yes} == no ]] || cargo build --release --locked --workspace --bins
}

# start_load SCENARIO SECONDS [options]: starts the load and waits until it measures.
start_load() {
    local scenario=$1 seconds=$2
    shift 2
    load_log=$(mktemp)
    load_said=$(mktemp)
    "$target/release/ringway-perf" "$scenario" --no-floor --runs 1 --warmup 1 --announce \
        --seconds "$((seconds + 3))" "$@" >"$load_log" 2>"$load_said" &
    load_pid=$!
    trap 'kill "$load_pid" 2>/dev/null || true' EXIT
    local deadline=$((SECONDS + 120))
    until grep -q '^measuring' "$load_said"; do
        kill -0 "$load_pid" 2>/dev/null || die "the load ended early: $(cat "$load_said")"
        ((SECONDS < deadline)) || die "the scenario does not begin: $(cat "$load_said")"
        sleep 0.1
    done
}

end_load() {
    wait "$load_pid"
    trap - EXIT
}

gateway_pid() {
    pgrep -P "$load_pid" -x ringway | head -n 1
}

# The threads of the shards, with commas. Their executors have helpers of the same name, which come
# and go: of each name it is the one that has worked most.
shard_threads() {
    local pid task
    pid=$(gateway_pid) || true
    [[ -n $pid ]] || return 0
    for task in "/proc/$pid/task"/*; do
        if [[ $(cat "$task/comm" 2>/dev/null) == shard-* ]]; then
            echo "$(cat "$task/comm") $(cut -d' ' -f1 "$task/schedstat") $(basename "$task")"
        fi
    done 2>/dev/null | sort -k1,1 -k2,2nr | awk '!seen[$1]++ { print $3 }' | paste -sd,
}

# first_event EVENT...: the first that the machine can count.
first_event() {
    local event
    for event in "$@"; do
        if ! perf stat -e "$event" true 2>&1 | grep -q 'not supported\|not counted'; then
            echo "$event"
            return
        fi
    done
    die "perf can count none of: $*"
}
