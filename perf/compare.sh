#!/usr/bin/env bash
# Two servers under the same load, in turn, so that the machine's moods meet both alike. Prints
# medians and the ratio of the first to the second.
#
#   perf/compare.sh REVISION-OR-PROGRAM REVISION-OR-PROGRAM SCENARIO [options of ringway-perf]
#
# A revision is anything that git understands (HEAD, a branch, a commit); `.` is the working tree.
# Revisions are built in worktrees under target/compare, which stay for the next time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=perf/common.sh
source perf/common.sh

[[ $# -ge 3 ]] || die "usage: perf/compare.sh NEW OLD SCENARIO [options of ringway-perf]"

# server_of REVISION-OR-PROGRAM: the path of its program.
server_of() {
    if [[ $1 == . ]]; then
        echo "$target/release/ringway"
    elif [[ -f $1 && -x $1 ]]; then
        realpath "$1"
    else
        local commit tree
        commit=$(git rev-parse --verify --quiet "$1^{commit}") || die "$1: no revision, no program"
        tree=target/compare/$commit
        [[ -d $tree ]] || git worktree add --detach --quiet "$tree" "$commit" >&2
        (cd "$tree" && CARGO_TARGET_DIR=target cargo build --release --locked -p ringway >&2)
        realpath "$tree/target/release/ringway"
    fi
}

build
new=$(server_of "$1")
old=$(server_of "$2")
shift 2
exec "$target/release/ringway-perf" "$@" --server "$new" --against "$old"
