#!/usr/bin/env bash
# Everything that must hold before a change goes in: format, lints, that fuzz targets build, tests,
# documentation. Stops at the first step that fails. On a fresh Debian or Ubuntu it installs what is
# missing.
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

build_dir=${CARGO_TARGET_DIR:-target}

# Client libraries of other languages against the real binary.
clients() {
    tests/clients/run.sh "$build_dir/debug/ringway"
}

# Every scenario of the load generator once, at a tiny size: whether they work, not how fast.
scenarios() {
    "$build_dir/debug/ringway-perf" smoke --server "$build_dir/debug/ringway"
}

# Whether the fuzz targets still build: with the stable compiler, without cargo-fuzz and libFuzzer, and
# with the versions that the gateway has. Most dependencies are there from the lints before.
fuzz_targets() {
    { [[ fuzz/Cargo.lock -nt Cargo.lock ]] || cp Cargo.lock fuzz/Cargo.lock; } &&
        cargo clippy --manifest-path fuzz/Cargo.toml --target-dir "$build_dir" \
            --no-default-features -- -D warnings
}

documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
}

# A cluster of the tests has three nodes of two shards. Further tests run beside it as far as there
# is room.
set_up 3 2
if [[ -z ${RUST_TEST_THREADS:-} && $(ulimit -l) != unlimited ]] && ! memlock_is_free; then
    tests_max=$(($(ulimit -l) / $(memlock_need 3 2)))
    RUST_TEST_THREADS=$((tests_max < $(nproc) ? tests_max : $(nproc)))
    export RUST_TEST_THREADS
fi
nats_server
components
step "format" cargo fmt --all --check
step "clippy" cargo clippy --locked --workspace --all-targets -- -D warnings
step "fuzz targets" fuzz_targets
step "build" cargo build --locked --workspace
step "tests" cargo test --locked --workspace
step "client libraries" clients
step "load scenarios" scenarios
step "documentation" documentation
printf '==> all passed in %d s\n' "$SECONDS"
