#!/usr/bin/env bash
# Where the time goes: samples the shard threads of a gateway while a scenario runs.
#
#   perf/record.sh SCENARIO [options of ringway-perf]
#
# Writes perf.data, a list of the hottest functions and a flame graph to target/perf/SCENARIO/. The
# flame graph is drawn by inferno, which cargo installs into target/tools the first time. Samples
# are of the CPU cycles, or of the CPU clock where the machine has no such counter. Environment:
# SECONDS_RECORDED (5), FREQUENCY (999), OUT.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=perf/common.sh
source perf/common.sh

[[ $# -ge 1 ]] || die "usage: perf/record.sh SCENARIO [options of ringway-perf]"
need perf
may_record
scenario=$1
shift
seconds=${SECONDS_RECORDED:-5}
out=${OUT:-target/perf/$scenario}
mkdir -p "$out"
build
event=$(first_event cycles cpu-clock)
start_load "$scenario" "$seconds" "$@"
# perf 6.1 may end itself with SIGTERM (143) when it has written everything.
perf record --quiet -e "$event" -F "${FREQUENCY:-999}" --call-graph fp -o "$out/perf.data" \
    -t "$(shard_threads)" -- sleep "$seconds" || (($? == 143)) || die "perf record failed"
end_load
perf report -i "$out/perf.data" --stdio --no-children -g none --percent-limit 0.5 \
    --sort dso,symbol 2>/dev/null | cut -c1-120 | tee "$out/functions.txt"
if need_inferno; then
    perf script -i "$out/perf.data" 2>/dev/null | inferno-collapse-perf 2>/dev/null \
        | inferno-flamegraph --title "$scenario" >"$out/flame.svg"
    echo "flame graph: $out/flame.svg"
fi
