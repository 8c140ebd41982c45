#!/usr/bin/env bash
# The tests of the socket ring, which has all the unsafe code, under valgrind and AddressSanitizer:
#
#   scripts/test-sanitizers.sh [valgrind] [address]      both without arguments
#
# valgrind: memcheck from the Debian package. 3.19 (Debian 12) knows the three system calls of
# io_uring and is enough. AddressSanitizer: the ordinary stable compiler, which has the runtime, but
# offers it as an unstable option; RUSTC_BOOTSTRAP=1 allows that for this build.
#
# What they see: every access of our own code to memory, leaks, and with valgrind uses of memory
# that was never written. What neither sees: the accesses that the kernel makes for operations in
# flight. Therefore freed memory is filled with a pattern: if the kernel sends from a batch that was
# freed too early, wrong bytes arrive, and the tests compare every byte.
#
# Tests that lower the limits of their process do so in a child, which runs without valgrind, and
# with AddressSanitizer.
#
# What cannot run here is skipped and named at the end; then the exit status is 3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup.sh
source scripts/setup.sh

skipped=()
# Options for the tests of the ring.
left_out=()

skip() {
    printf '==> %s: SKIPPED: %s\n' "$1" "$2" >&2
    skipped+=("$1: $2")
}

# The unit tests of the ring, then its tests against real sockets. One test at a time: valgrind runs
# one thread at a time anyway, and a child process is not to inherit the sockets of other tests.
ring_tests() {
    cargo test --locked "$@" --lib engine::ring:: -- --test-threads=1
    cargo test --locked "$@" --test ring -- --test-threads=1 "${left_out[@]}"
}

host() {
    rustc -vV | sed -n 's/^host: //p'
}

with_valgrind() {
    if ! command -v valgrind >/dev/null; then
        packages valgrind libc6-dbg
    fi
    local version runner
    version=$(valgrind --version)
    if ! at_least "${version#valgrind-}" 3.17; then
        skip valgrind "$version does not know io_uring, 3.17 or newer is needed"
        return
    fi
    printf '==> %s\n' "$version"
    # Under valgrind no thread runs while another one waits in the ring, so it can not end the wait.
    left_out=(--skip waiting::a_wait_ends_with)
    runner=$(host | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${runner}_RUNNER=valgrind --quiet --error-exitcode=99 --fair-sched=try \
--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
--malloc-fill=0xa5 --free-fill=0xdd"
    ring_tests
    unset "CARGO_TARGET_${runner}_RUNNER"
    left_out=()
}

with_address() {
    local host runtimes
    host=$(host)
    runtimes=$(rustc --print target-libdir)
    if ! compgen -G "$runtimes/librustc*_rt.asan.a" >/dev/null; then
        skip address "this compiler comes without the runtime of AddressSanitizer ($host)"
        return
    fi
    printf '==> AddressSanitizer of %s\n' "$(rustc --version)"
    (
        export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address
        export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1
        ASAN_OPTIONS+=:max_malloc_fill_size=1073741824:malloc_fill_byte=165
        ASAN_OPTIONS+=:max_free_fill_size=1073741824:free_fill_byte=221
        # With a target the build scripts and macros stay as they are.
        ring_tests --target "$host" --target-dir target/address
    )
}

# One test at a time, with two rings at the most.
set_up 1 2
if (($# == 0)); then
    set -- valgrind address
fi
for tool in "$@"; do
    case $tool in
        valgrind | address) "with_$tool" ;;
        *) die "unknown tool $tool; there are valgrind and address" ;;
    esac
done
if ((${#skipped[@]} > 0)); then
    printf '==> not run: %s\n' "${skipped[@]}" >&2
    exit 3
fi
printf '==> all passed in %d s: %s\n' "$SECONDS" "$*"
