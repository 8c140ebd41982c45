# shellcheck shell=bash
# What a fresh Debian or Ubuntu needs to build and run Ringway. Sourced by run.sh and test.sh.
#
# Installs only what is missing, and asks for root (directly or by sudo) only for that. Afterwards
# cargo is in PATH and the limits of this shell are as high as it may raise them.

# A sentence on standard error, and the end.
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

note() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root: $*. Run it as root, or install sudo"
    fi
}

# Fetches the lists of Debian packages, once.
package_lists() {
    command -v apt-get >/dev/null || return
    if [[ -z ${package_lists_are_fresh:-} ]]; then
        as_root apt-get update -qq
        package_lists_are_fresh=yes
    fi
}

# Debian packages. Never removes one.
packages() {
    package_lists || die "there is no apt-get here. Install what these Debian packages have: $*"
    note "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends --no-remove "$@" >/dev/null
}

build_tools() {
    local missing=()
    command -v gcc >/dev/null || missing+=(gcc)
    [[ -e /usr/include/stdio.h ]] || missing+=(libc6-dev)
    command -v make >/dev/null || missing+=(make)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    command -v curl >/dev/null || missing+=(curl)
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)
    if ((${#missing[@]} > 0)); then
        packages "${missing[@]}"
    fi
}

# What the tests of the mesh need beside the gateway itself.
nats_server() {
    # Debian puts it into /usr/sbin.
    export PATH="$PATH:/usr/sbin"
    command -v nats-server >/dev/null || packages nats-server
    # A partition is made with network namespaces.
    command -v ip >/dev/null || packages iproute2
}

# Whether version $1 is at least version $2.
at_least() {
    [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

# Prints the version of the compiler that cargo would use here; nothing if there is none.
rust_version() {
    local version
    version=$(rustc --version 2>/dev/null) && cargo --version >/dev/null 2>&1 || return 0
    version=${version#rustc }
    printf '%s' "${version%%[ -]*}"
}

rust_is_enough() {
    local version
    version=$(rust_version)
    [[ -n $version ]] && at_least "$version" "$1"
}

# The packages called rustc are older than what is needed, or become so; rustup is not.
install_rust() {
    if ! command -v rustup >/dev/null && ! command -v rustc >/dev/null && package_lists &&
        apt-cache show rustup >/dev/null 2>&1; then
        packages rustup
    fi
    if command -v rustup >/dev/null; then
        rustup toolchain install stable --profile minimal
        # For this shell; what the user has chosen as default stays so.
        export RUSTUP_TOOLCHAIN=stable
    else
        curl --proto '=https' --tlsv1.2 -fsS https://sh.rustup.rs |
            sh -s -- -y --profile minimal --no-modify-path ||
            die "https://sh.rustup.rs could not be used. Install Rust as https://rustup.rs says"
    fi
}

# A toolchain that is new enough already is used as it is.
rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    [[ -n $wanted ]] || die "Cargo.toml has no rust-version"
    export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    rust_is_enough "$wanted" && return
    # A compiler of the distribution may stand before that of rustup.
    export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    hash -r
    rust_is_enough "$wanted" && return
    found=$(rust_version)
    note "installing Rust $wanted or newer; found: ${found:-none}"
    install_rust
    hash -r
    found=$(rust_version)
    rust_is_enough "$wanted" ||
        die "Rust $wanted is needed, found: ${found:-none}. See https://rustup.rs"
}

kernel() {
    local release disabled
    release=$(uname -r)
    at_least "${release%%-*}" 6.1 ||
        die "the kernel is $release, but Ringway needs Linux 6.1 or newer. Upgrade the kernel"
    disabled=$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0)
    if [[ $disabled == 2 || ($disabled == 1 && $EUID -ne 0) ]]; then
        die "io_uring is switched off (kernel.io_uring_disabled = $disabled)." \
            "Allow it: sudo sysctl kernel.io_uring_disabled=0"
    fi
}

# Locked memory in KiB that a shard takes, and the start of a gateway. `ringway check --machine`
# prints both, and a test compares them. Kernels before 6.14 charge a shard's buffers only.
memlock_shard=448
memlock_start=20
memlock_shard_buffers=192
# glommio refuses to run with a lower limit.
memlock_min=512

# Prints the KiB that gateways need together: memlock_need <gateways> <shards of each>
memlock_need() {
    local gateways=$1 shards=$2 release need
    release=$(uname -r)
    if at_least "${release%%-*}" 6.14; then
        need=$((gateways * (shards * memlock_shard + memlock_start)))
    else
        need=$((gateways * shards * memlock_shard_buffers))
    fi
    printf '%d' $((need > memlock_min ? need : memlock_min))
}

# CPUs that a process may use here; a gateway has a shard on each, 256 at the most.
cpus() {
    local count
    count=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
    printf '%d' $((count < 256 ? count : 256))
}

# Whether limits for locked memory do not concern this shell (CAP_IPC_LOCK).
memlock_is_free() {
    local capabilities
    capabilities=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
    (((16#${capabilities:-0} >> 14) & 1))
}

# Makes sure that gateways get their locked memory: memlock <gateways> <shards of each>
memlock() {
    local need
    need=$(memlock_need "$1" "$2")
    ulimit -l unlimited 2>/dev/null || sudo -n prlimit --pid $$ --memlock=unlimited 2>/dev/null ||
        ulimit -S -l "$(ulimit -H -l)" || true
    [[ $(ulimit -l) == unlimited ]] && return
    if [[ $(ulimit -l) -lt $memlock_min ]] ||
        { [[ $(ulimit -l) -lt $need ]] && ! memlock_is_free; }; then
        die "this shell may lock only $(ulimit -l) KiB of memory, $need are needed for" \
            "$1 gateway(s) with $2 shard(s). Raise memlock in /etc/security/limits.conf" \
            "(systemd: LimitMEMLOCK=${need}K; Docker: --ulimit memlock=$((need * 1024)))," \
            "or run this as root, or on fewer CPUs (taskset -c 0)"
    fi
}

# Raises the soft limit of descriptors, and the hard one where that is allowed.
descriptors() {
    local count=1048576
    if [[ $(ulimit -S -n) != unlimited && $(ulimit -S -n) -lt $count ]]; then
        ulimit -S -n "$count" 2>/dev/null || ulimit -n "$count" 2>/dev/null ||
            ulimit -S -n "$(ulimit -H -n)" || true
    fi
}

# set_up <gateways> <shards of each>: what runs here at a time. First what can not be installed.
set_up() {
    kernel
    descriptors
    memlock "$1" "$2"
    build_tools
    rust
}
