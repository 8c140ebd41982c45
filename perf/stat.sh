#!/usr/bin/env bash
# Counters of the shard threads while a scenario runs: cycles and instructions where the machine has
# them, context switches, page faults, and system calls by name; in all and per message.
#
#   perf/stat.sh SCENARIO [options of ringway-perf]
#
# Environment: SECONDS_RECORDED (5).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=perf/common.sh
source perf/common.sh

[[ $# -ge 1 ]] || die "usage: perf/stat.sh SCENARIO [options of ringway-perf]"
need perf
scenario=$1
shift
seconds=${SECONDS_RECORDED:-5}
build
start_load "$scenario" "$((seconds * 2))" "$@"
threads=$(shard_threads)
counters=$(mktemp)
calls=$(mktemp)
perf stat -x, -o "$counters" -t "$threads" \
    -e task-clock,context-switches,cpu-migrations,page-faults,cycles,instructions \
    -- sleep "$seconds" || true
perf stat -x, -o "$calls" -e 'syscalls:sys_enter_*' -t "$threads" -- sleep "$seconds" 2>/dev/null \
    || echo "no system calls by name: perf needs the tracepoints in /sys/kernel/tracing (root)" >&2
end_load
cat "$load_log"
rate=$(awk '$1 == "messages_per_s" { print $2 }' "$load_log")
awk -F, -v messages="${rate:-0}" -v seconds="$seconds" '
    BEGIN { printf "%-40s %14s %14s\n", "in " seconds " s", "", "per message" }
    $1 ~ /^[0-9.]+$/ && $1 > 0 {
        name = $3 == "task-clock" ? "task-clock, ms" : $3
        each = messages > 0 ? sprintf("%.6f", $1 / messages / seconds) : "-"
        printf "%-40s %14.0f %14s\n", name, $1, each
    }' "$counters" "$calls"
rm -f "$counters" "$calls"
