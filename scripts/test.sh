#!/usr/bin/env bash
# Everything that must hold before a change goes in: format, lints, tests, documentation. Stops at
# the first step that fails. On a fresh Debian or Ubuntu it installs what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup.sh
source scripts/setup.sh

# step <name> <command...>: says what runs and how long it took. The command stands in a condition,
# so `set -e` does not end a function in the middle: one command per function.
step() {
    local name=$1 began=$SECONDS
    shift
    printf '==> %s\n' "$name"
    if ! "$@"; then
        printf '==> %s: FAILED after %d s\n' "$name" $((SECONDS - began)) >&2
        exit 1
    fi
    printf '==> %s: %d s\n' "$name" $((SECONDS - began))
}

# rustfmt and clippy, where the toolchain came without them.
components() {
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        command -v rustup >/dev/null || die "rustfmt and clippy are missing. Install them"
        rustup component add rustfmt clippy
    fi
}

# What the tests with other languages' client libraries need.
clients() {
    if [[ -x tests/clients/setup.sh ]]; then
        tests/clients/setup.sh
    fi
}

documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
}

set_up
components
step "client libraries" clients
step "format" cargo fmt --all --check
step "clippy" cargo clippy --locked --workspace --all-targets -- -D warnings
step "tests" cargo test --locked --workspace
step "documentation" documentation
printf '==> all passed in %d s\n' "$SECONDS"
