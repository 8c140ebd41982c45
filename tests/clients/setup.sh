#!/usr/bin/env bash
# Installs what the programs in this folder need, into .cache here and the caches of Go and npm.
# Does nothing that is done already. Commands that are missing come from the system's packages.
set -euo pipefail
cd "$(dirname "$0")"

# Each line: a command, the Debian package that brings it.
missing=()
while read -r command package; do
    command -v "$command" >/dev/null || missing+=("$package")
done <<'LIST'
python3 python3
go golang-go
node nodejs
npm npm
LIST
if command -v python3 >/dev/null && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    missing+=(python3-venv)
fi
if ((${#missing[@]})); then
    root=()
    ((EUID == 0)) || root=(sudo)
    "${root[@]}" apt-get update -q
    "${root[@]}" apt-get install -qy --no-install-recommends "${missing[@]}"
fi

# A stamp holds the checksum of the files that decide what is installed.
fresh() { [[ -f .cache/$1.stamp && $(cat "${@:2}" | sha256sum) == "$(cat ".cache/$1.stamp")" ]]; }
stamp() { cat "${@:2}" | sha256sum >".cache/$1.stamp"; }
# at_least WHAT WANTED FOUND: old distributions have commands that are too old for the libraries.
at_least() {
    [[ $(printf '%s\n' "$2" "$3" | sort -V | head -n 1) == "$2" ]] && return
    echo "SKIP the $1 programs: they need $1 $2 or newer, this is $3"
    return 1
}

mkdir -p .cache
if ! fresh python python/requirements.txt || [[ ! -x .cache/venv/bin/python ]]; then
    python3 -m venv .cache/venv
    .cache/venv/bin/pip install --quiet --requirement python/requirements.txt
    stamp python python/requirements.txt
fi
if at_least Node 18.17 "$(node -p process.versions.node)"; then
    if ! fresh node node/package.json node/package-lock.json || [[ ! -d node/node_modules ]]; then
        npm ci --prefix node --no-audit --no-fund --silent
        stamp node node/package.json node/package-lock.json
    fi
fi
# From 1.21 on Go fetches the version that go.mod asks for.
if at_least Go 1.21 "$(go version | sed -E 's/^go version go([0-9.]+).*/\1/')"; then
    (cd go && GOFLAGS=-mod=readonly go build -o ../.cache/ ./generation5 ./generation6)
fi
