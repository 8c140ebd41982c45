#!/usr/bin/env bash
# Checks what Ringway is built of against deny.toml: licences, banned crates, sources, and the
# advisories of the RustSec database. Installs cargo-deny where it is missing, which builds it for
# some minutes.
#
# The database is fetched from the network. Without one the advisories are skipped and named at the
# end; then the exit status is 3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup.sh
source scripts/setup.sh

build_tools
rust
if ! cargo deny --version >/dev/null 2>&1; then
    note "building cargo-deny"
    cargo install --locked --quiet cargo-deny
fi

cargo deny --locked check licenses bans sources
if cargo deny --locked fetch db; then
    cargo deny --locked check --disable-fetch advisories
else
    note "SKIPPED: advisories: the database of advisories can not be fetched from here"
    exit 3
fi
