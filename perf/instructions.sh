#!/usr/bin/env bash
# Instructions in user space that a shard takes for a message, counted by callgrind over the
# simulation. The figures of one revision are the same on every run, to 0.1 %, on a busy machine and
# in a virtual one, so a difference of a percent is a difference.
#
#   perf/instructions.sh [NEW [OLD]]
#
# A revision is anything that git understands; `.`, the default, is the working tree. With two, the
# ratio of the first to the second stands behind the figures. SCENARIOS="echo room" takes some;
# BUILD=no takes the program of the working tree as it is. Both need perf/src/bin/instructions.rs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=perf/common.sh
source perf/common.sh

command -v valgrind >/dev/null || die "valgrind is missing: apt-get install valgrind"

# Messages of the short and of the long run.
few=2000
many=6000

# program_of REVISION: the path of its program.
program_of() {
    if [[ $1 == . ]]; then
        [[ ${BUILD:-yes} == no ]] ||
            cargo build --release --locked -p ringway-perf --bin instructions >&2
        realpath "$target/release/instructions"
        return
    fi
    local commit tree=target/compare/source program
    commit=$(git rev-parse --verify --quiet "$1^{commit}") || die "$1: no such revision"
    program=target/compare/instructions-$commit
    if [[ ! -x $program ]]; then
        mkdir -p target/compare
        [[ -e $tree/.git ]] || git worktree add --detach --quiet "$tree" "$commit" >&2
        git -C "$tree" checkout --quiet --detach "$commit" >&2
        (cd "$tree" && CARGO_TARGET_DIR=$PWD/../build \
            cargo build --release --locked -p ringway-perf --bin instructions >&2)
        cp target/compare/build/release/instructions "$program"
    fi
    realpath "$program"
}

# count PROGRAM SCENARIO MESSAGES: instructions of the shard in the whole run. The allocator gives
# nothing back meanwhile: when it does so is a matter of the clock.
count() {
    local said
    said=$(MIMALLOC_PURGE_DELAY=-1 valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        --collect-atstart=no --toggle-collect='ringway::*sim::of_shard*' "$@" 2>&1) || die "$said"
    sed -n 's/^==[0-9]*== Collected : \([0-9]*\).*/\1/p' <<<"$said"
}

# per_message PROGRAM SCENARIO
per_message() {
    local short long
    short=$(count "$1" "$2" "$few")
    long=$(count "$1" "$2" "$many")
    [[ $short -gt 0 ]] || die "nothing was counted: the symbols of $1 are missing"
    echo $(((long - short) / (many - few)))
}

new=$(program_of "${1:-.}")
old=${2:+$(program_of "$2")}
names=${SCENARIOS:-$("$new" 2>/dev/null | cut -f 1 || true)}
printf '%-12s %12s' scenario instructions
[[ -z $old ]] || printf ' %12s %6s' before ratio
echo
for name in $names; do
    figure=$(per_message "$new" "$name")
    printf '%-12s %12d' "$name" "$figure"
    if [[ -n $old ]]; then
        before=$(per_message "$old" "$name")
        printf ' %12d %6s' "$before" "$(awk "BEGIN { printf \"%.3f\", $figure / $before }")"
    fi
    echo
done
