#!/usr/bin/env bash
# Counters of the shard threads while a scenario runs: cycles and instructions where the machine has
# them, context switches, page faults, and system calls by name.
#
#   perf/stat.sh SCENARIO [options of ringway-perf]
#
# Per message: divide by messages_per_s of the table times the seconds. Environment:
# SECONDS_RECORDED (5).
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
perf stat -e task-clock,context-switches,cpu-migrations,page-faults,cycles,instructions \
    -t "$threads" -- sleep "$seconds" || true
perf stat -e 'syscalls:sys_enter_*' -t "$threads" -- sleep "$seconds" 2>&1 \
    | awk '$1 ~ /^[0-9,]+$/ && $1 != "0" && $2 ~ /sys_enter/ { print }' || true
end_load
cat "$load_log"
