#!/usr/bin/env bash
# Two servers under the same load, in turn, so that the machine's moods meet both alike. Prints
# medians and the ratio of the first to the second.
#
#   perf/compare.sh REVISION-OR-PROGRAM REVISION-OR-PROGRAM SCENARIO [options of ringway-perf]
#
# A revision is anything that git understands (HEAD, a branch, a commit); `.` is the working tree.
# Revisions are checked out and built below target/compare, apart from the working tree: cargo would
# take the one's results for the other's. Their programs stay there for the next time. BUILD=no
# takes the programs of the working tree as they are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=perf/common.sh
source perf/common.sh

[[ $# -ge 3 ]] || die "usage: perf/compare.sh NEW OLD SCENARIO [options of ringway-perf]"

# server_of REVISION-OR-PROGRAM: the path of its program.
server_of() {
    if [[ $1 == . ]]; then
        realpath "$target/release/ringway"
    elif [[ -f $1 && -x $1 ]]; then
        realpath "$1"
    else
        local commit tree program
        commit=$(git rev-parse --verify --quiet "$1^{commit}") || die "$1: no revision, no program"
        tree=target/compare/source
        program=target/compare/ringway-$commit
        if [[ ! -x $program ]]; then
            [[ -e $tree/.git ]] || git worktree add --detach --quiet "$tree" "$commit" >&2
            git -C "$tree" checkout --quiet --detach "$commit" >&2
            (cd "$tree" && CARGO_TARGET_DIR=$builds cargo build --release --locked --bin ringway >&2)
            cp "$builds/release/ringway" "$program"
        fi
        realpath "$program"
    fi
}

mkdir -p target/compare
builds=$PWD/target/compare/build
build
new=$(server_of "$1")
old=$(server_of "$2")
shift 2
exec "$target/release/ringway-perf" "$@" --server "$new" --against "$old"
