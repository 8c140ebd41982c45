#!/usr/bin/env bash
# Makes certificates for trials: an authority, a server and a client certificate signed by it.
#
#     scripts/make-cert.sh [directory [name-or-address...]]
#
# The directory is `certs` by default, the server is called localhost, 127.0.0.1 and ::1. The
# certificates are valid for a year. Files that exist are not overwritten. For production use an
# authority of your own.
set -euo pipefail

directory=${1:-certs}
shift || true
names=("$@")
if ((${#names[@]} == 0)); then
    names=(localhost 127.0.0.1 ::1)
fi
command -v openssl >/dev/null || {
    echo "make-cert.sh: openssl is missing. Install the package openssl" >&2
    exit 1
}
for name in ca server client; do
    for file in "$directory/$name.pem" "$directory/$name.key"; do
        if [[ -e $file ]]; then
            echo "make-cert.sh: $file exists. Remove it, or name another directory" >&2
            exit 1
        fi
    done
done

alternatives=()
for name in "${names[@]}"; do
    if [[ $name == *:* || $name =~ ^[0-9]+(\.[0-9]+){3}$ ]]; then
        alternatives+=("IP:$name")
    else
        alternatives+=("DNS:$name")
    fi
done
subject_alternatives=$(IFS=, && echo "${alternatives[*]}")

# sign <name> <common name> <extension...>
sign() {
    local name=$1 subject=$2
    shift 2
    openssl req -new -key "$directory/$name.key" -subj "/CN=$subject" |
        openssl x509 -req -days 365 -CA "$directory/ca.pem" -CAkey "$directory/ca.key" \
            -set_serial "0x$(openssl rand -hex 16)" -extfile <(printf '%s\n' "$@") \
            -out "$directory/$name.pem" 2>/dev/null
}

mkdir -p "$directory"
umask 077
for name in ca server client; do
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$directory/$name.key" \
        2>/dev/null
done
openssl req -x509 -new -key "$directory/ca.key" -days 365 -subj "/CN=Ringway trial authority" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -out "$directory/ca.pem"
common=("basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature")
sign server "${names[0]}" "${common[@]}" "extendedKeyUsage=serverAuth" \
    "subjectAltName=$subject_alternatives"
sign client "Ringway trial client" "${common[@]}" "extendedKeyUsage=clientAuth"
chmod 644 "$directory"/*.pem

cat <<TEXT
Made in $directory: ca, server and client, each .pem and .key. In [[listener]]:
  tls = { cert = "$directory/server.pem", key = "$directory/server.key" }
and for listeners that require a client certificate:
  tls = { cert = "$directory/server.pem", key = "$directory/server.key", client_ca = "$directory/ca.pem" }
TEXT
