#!/usr/bin/env bash
# How many messages a second are taken and durable: Aldis (profile `bench`) and Postfix (a private one that holds everything),
# driven by Postfix's own smtp-source over loopback, in turns within one run. Prints every figure and the medians.
#
#   benches/ingest.sh [COUNT] [SIZE] [ROUNDS]       defaults 2000, 10240, 3; ALDIS_BIN names another program than a fresh release build
#
# Needs root (Postfix's master does) and Debian's postfix. Only ratios within one run mean anything on a shared machine.
set -eu
cd "$(dirname "$0")/.."
count=${1:-2000}
size=${2:-10240}
rounds=${3:-3}
program=${ALDIS_BIN:-}
if [ -z "$program" ]; then
    cargo build --release --locked --quiet --bin aldis >&2
    program=${CARGO_TARGET_DIR:-target}/release/aldis
fi
work=$(mktemp -d "${TMPDIR:-/var/tmp}/aldis-ingest.XXXXXX")
chmod 755 "$work"
aldis=""
stop() {
    [ -z "$aldis" ] || kill "$aldis" 2>/dev/null || true
    bash tests/peers/postfix.sh stop "$work/postfix" || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

"$program" run --profile firmware-cfg/profiles/bench.toml --set "node.state_dir=$work/aldis" \
    --set "node.socket=$work/aldis.sock" --set listener.relay.address=127.0.0.1:0 >"$work/ready" 2>"$work/log" &
aldis=$!
for _ in $(seq 100); do
    grep -q '^ready' "$work/ready" && break
    sleep 0.1
done
here=$(sed -n 's/.* relay=\([^ ]*\).*/\1/p' "$work/ready")
[ -n "$here" ] || { cat "$work/log"; exit 1; }
there=127.0.0.1:$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
bash tests/peers/postfix.sh start "$work/postfix" "${there##*:}" hold 2>/dev/null

# once TARGET SESSIONS COUNT REUSE: messages a second, from the first connection to the last reply.
once() {
    local begin end
    begin=$(date +%s%N)
    # shellcheck disable=SC2086
    smtp-source $4 -s "$2" -m "$3" -l "$size" -f a@src.test -t b@dest.test "$1"
    end=$(date +%s%N)
    echo $(($3 * 1000000000 / (end - begin)))
}
median() { tr ' ' '\n' | grep . | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

echo "$count messages of $size bytes ($((count / 4)) with one session), $rounds rounds in turns, messages/s"
for reuse in "-d" ""; do
    for sessions in 1 20; do
        n=$count
        [ "$sessions" = 1 ] && n=$((count / 4))
        a="" p=""
        for _ in $(seq "$rounds"); do
            a="$a $(once "$here" "$sessions" "$n" "$reuse")"
            p="$p $(once "$there" "$sessions" "$n" "$reuse")"
        done
        ma=$(echo "$a" | median)
        mp=$(echo "$p" | median)
        how=$([ -n "$reuse" ] && echo reused || echo "one message each")
        echo "sessions=$sessions connections: $how: aldis $ma (${a# }), postfix $mp (${p# }), ratio $((100 * ma / mp)) %"
    done
done
