#!/usr/bin/env bash
# Builds Ringway and runs `ringway demo`: every protocol on 127.0.0.1, with a business process that
# answers. Arguments go to `ringway demo`. On a fresh Debian or Ubuntu it installs what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup.sh
source scripts/setup.sh
set_up 1 "$(cpus)"

cargo build --release --locked --bin ringway
exec "${CARGO_TARGET_DIR:-target}/release/ringway" demo "$@"
