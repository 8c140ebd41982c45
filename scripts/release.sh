#!/usr/bin/env bash
# Builds Ringway as it is installed:
#
#   scripts/release.sh [DIRECTORY]     (target/dist)
#
# makes `ringway`, without debug information, and beside it `ringway.debug`, which has it. perf, gdb
# and the backtraces of panics find that file where the program is, or below /usr/lib/debug; without
# it functions still have their names, but no lines. `cargo build --release` leaves everything in
# one file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$(realpath -m "${1:-$target/dist}")
[[ ${BUILD:-yes} == no ]] || cargo build --release --locked --bin ringway
mkdir -p "$out"
# Neither is written in place: the old ones may be in use.
work=$(mktemp -d -p "$out")
trap 'rm -rf "$work"' EXIT
objcopy --only-keep-debug --compress-debug-sections=zlib "$target/release/ringway" \
    "$work/ringway.debug"
objcopy --strip-debug --add-gnu-debuglink="$work/ringway.debug" "$target/release/ringway" \
    "$work/ringway"
mv "$work/ringway.debug" "$work/ringway" "$out/"
ls -l "$out/ringway" "$out/ringway.debug"
