#!/usr/bin/env bash
# Writes the reference of keys and limits in README.md anew, from the code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --quiet --locked --workspace --bin ringway
new=$(mktemp)
trap 'rm -f "$new"' EXIT
"${CARGO_TARGET_DIR:-target}/debug/ringway" check --print-reference |
    awk '
        NR == FNR { reference = reference $0 "\n"; next }
        /^<!-- \/reference -->/ { inside = 0 }
        !inside { print }
        /^<!-- reference -->/ { printf "%s", reference; inside = 1 }
    ' - README.md >"$new"
cat "$new" >README.md
