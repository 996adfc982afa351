#!/usr/bin/env bash
# What a deep queue costs: a node is started on a store in which so many messages wait for a slow next hop. For each depth: the time to pick the
# next message, the seconds from exec until it accepts mail, its memory, and how soon a FLASH handed in by SMTP leaves.
#
#   benches/depth.sh [DEPTH ...]       defaults 1000 100000 1000000
#
# SIZE: bytes of a message (1024); ALDIS_BIN and FILL_BIN name other programs than fresh release builds; DEPTH_DIR: where the stores lie
# (/var/tmp), 4.3 GB for a million. Needs python3, which is the next hop too.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- 1000 100000 1000000
if [ -z "${ALDIS_BIN:-}" ] || [ -z "${FILL_BIN:-}" ]; then
    cargo build --release --locked --quiet --bin aldis --example fill_queue >&2
    : "${ALDIS_BIN:=${CARGO_TARGET_DIR:-target}/release/aldis}" "${FILL_BIN:=${CARGO_TARGET_DIR:-target}/release/examples/fill_queue}"
fi
work=$(mktemp -d "${DEPTH_DIR:-/var/tmp}/aldis-depth.XXXXXX")
trap 'rm -rf "$work"' EXIT
for depth in "$@"; do
    rm -rf "$work/state"
    "$FILL_BIN" "$work/state" "$depth" "${SIZE:-1024}"
    python3 benches/depth.py "$ALDIS_BIN" "$work" "$depth"
done
