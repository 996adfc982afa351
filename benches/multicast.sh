#!/usr/bin/env bash
# How long 100 KiB take to several receivers over a satellite: Aldis in both modes, NORM and UFTP, behind the same shaper, delay and losses, in
# real time. Every cell has network namespaces of its own; nothing is sent anywhere else. Prints a table.
#
#   benches/multicast.sh [RECEIVERS] [LOSSES] [RUNNERS]     defaults "3 10", "0 0.05 0.2" and all below
#
# A runner may bring parameters of its own, a blank written as +: norm:auto=8,backoff=1 uftp:-R+62+-r+0.8. Those of norm and uftp below are the
# best that were found (docs/compared.md); norm-8 and norm-38 send so many datagrams of parity unasked. In aldis-2 what counts is the second message.
#
# ALDIS_BIN: the program [a fresh release build]; SEEDS: one cell for each ["1 2 3 4 5"]; AT_ONCE: cells side by side [8]; PATIENCE: seconds until
# a cell is given up [300]; KEEP: a directory that keeps profiles and logs. Needs root, iproute2, python3, and Debian's uftp, libnorm-dev and
# g++. What a cell is: benches/multicast/cell.py.
#
# 64 kbit/s, 270 ms one way, 102 400 random bytes. Time runs from the sender's first datagram until the last receiver has it all.
set -eu
cd "$(dirname "$0")/.."
receivers=${1:-3 10}
losses=${2:-0 0.05 0.2}
runners=${3:-aldis aldis-2 mule norm-8 norm-38 uftp}
seeds=${SEEDS:-1 2 3 4 5}
at_once=${AT_ONCE:-8}
ALDIS_BIN=${ALDIS_BIN:-}
if [ -z "$ALDIS_BIN" ]; then
    cargo build --release --locked --quiet --bin aldis >&2
    ALDIS_BIN=${CARGO_TARGET_DIR:-target}/release/aldis
fi
ALDIS_BIN=$(realpath "$ALDIS_BIN")
work=${KEEP:-$(mktemp -d "${TMPDIR:-/tmp}/aldis-multicast.XXXXXX")}
mkdir -p "$work"
work=$(realpath "$work")
finish() {
    # shellcheck disable=SC2046  # One word each.
    kill $(jobs -rp) 2>/dev/null || true
    wait 2>/dev/null || true
    [ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap finish EXIT
for program in ip python3; do command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 2; }; done
case $runners in *uftp*) command -v uftp >/dev/null || { echo "uftp is missing: apt-get install uftp" >&2; exit 2; } ;; esac
NORM_BIN=$work/norm
case $runners in
*norm*) g++ -O1 -o "$NORM_BIN" benches/multicast/norm.cpp -lnorm || { echo "apt-get install g++ libnorm-dev" >&2; exit 2; } ;;
esac
export ALDIS_BIN NORM_BIN

called() { # RUNNER
    case $1 in
    norm-*) echo "norm:rate=64000,grtt=0.7,backoff=0,auto=${1#norm-}" ;;
    aldis-2) echo "aldis:learn=1" ;;
    uftp) echo "uftp:-R 64 -b 1424 -r 0.6:0.6:1" ;;
    *) echo "${1//+/ }" ;;
    esac
}

cells=()
for n in $receivers; do
    for loss in $losses; do
        for seed in $seeds; do
            for runner in $runners; do
                while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do sleep 0.2; done
                cell=$work/${#cells[@]}
                cells+=("$cell")
                mkdir -p "$cell"
                echo "$runner" >"$cell/label"
                python3 benches/multicast/cell.py "$(called "$runner")" "$n" "$loss" "$seed" "$cell/run" >"$cell/result" 2>"$cell/err" &
            done
        done
    done
done
wait
date -u '+%Y-%m-%d %H:%M UTC'
echo "$("$ALDIS_BIN" --version); load $(cut -d' ' -f1-3 /proc/loadavg)"
python3 benches/multicast/table.py "${cells[@]}"
