#!/usr/bin/env bash
# How many messages a second are taken and durable: Aldis (profile `bench`) and Postfix (a private one that holds everything), and how many
# smtp-sink takes, which stores nothing and so is the ceiling. Driven by Postfix's own smtp-source over loopback. One server is alive at a
# time; they take turns, each started anew: A P S A P S. Prints medians, every figure, and ratios.
#
#   benches/ingest.sh [TURNS] [SIZE ...]        defaults 5, 10240; ALDIS_BIN names another program than a fresh release build
#
# With THROUGH=1 both hand everything on to a smtp-sink, and what is measured is how many messages a second have come out there.
#
# With LATENCY=1 what is measured is how long clients wait for the 250 after their final dot (benches/dot.py), at RATE
# messages a second (100), connections reused.
#
# SESSIONS: how many clients there are at once ("1 20 100"). INGEST_SECONDS: how long one measurement is to take, about (4). Needs root (Postfix's
# master does) and Debian's postfix. Only ratios within one run mean anything on a shared machine.
set -eu
cd "$(dirname "$0")/.."
turns=${1:-5}
[ $# -gt 1 ] && shift && sizes=$* || sizes=10240
length=${INGEST_SECONDS:-4}
program=${ALDIS_BIN:-}
if [ -z "$program" ]; then
    cargo build --release --locked --quiet --bin aldis >&2
    program=${CARGO_TARGET_DIR:-target}/release/aldis
fi
work=$(mktemp -d "${TMPDIR:-/var/tmp}/aldis-ingest.XXXXXX")
chmod 755 "$work"
server=""
sink=""
stop() {
    [ -z "$sink" ] || { kill "$sink" 2>/dev/null && wait "$sink" 2>/dev/null; } || true
    sink=""
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    server=""
    bash tests/peers/postfix.sh stop "$work/postfix" || true
}
trap 'stop; rm -rf "$work"' EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port)
hop=$(free_port)
through=${THROUGH:-}
latency=${LATENCY:-}
names="aldis postfix sink"
[ -z "$through$latency" ] || names="aldis postfix"
to=hold
[ -z "$through" ] || to="smtp:127.0.0.1:$hop"
sed "s/to = \"hold\"/to = \"$to\"/" firmware-cfg/profiles/bench.toml >"$work/bench.toml"

# start NAME: that server, empty, on the port.
start() {
    if [ -n "$through" ]; then
        smtp-sink -c -u nobody "127.0.0.1:$hop" 1000 >"$work/count" &
        sink=$!
    fi
    case $1 in
    aldis)
        rm -rf "$work/aldis"
        "$program" run --profile "$work/bench.toml" --set "node.state_dir=$work/aldis" \
            --set "node.socket=$work/aldis.sock" --set "listener.relay.address=127.0.0.1:$port" >"$work/ready" 2>"$work/log" &
        server=$!
        ;;
    postfix)
        rm -rf "$work/postfix"
        how=(hold)
        [ -z "$through" ] || how=(relay "$hop")
        bash tests/peers/postfix.sh start "$work/postfix" "$port" "${how[@]}" 2>/dev/null
        ;;
    sink)
        smtp-sink -u nobody "127.0.0.1:$port" 1000 &
        server=$!
        ;;
    esac
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
        sleep 0.1
    done
    echo "$1 does not start" >&2
    exit 1
}

# How many messages have come out.
out() { tail -c 200 "$work/count" | tr '\r' '\n' | sed -n 's/.*mesg=\([0-9]*\)$/\1/p' | tail -1 | grep . || echo 0; }

# once SESSIONS COUNT SIZE REUSE: messages a second, from the first connection to the last reply, or until the last has come out.
once() {
    local begin end before
    before=$([ -z "$through" ] && echo 0 || out)
    begin=$(date +%s%N)
    # shellcheck disable=SC2086
    smtp-source $4 -s "$1" -m "$2" -l "$3" -f a@src.test -t b@dest.test "127.0.0.1:$port"
    while [ -n "$through" ] && [ "$(out)" -lt $((before + $2)) ]; do sleep 0.02; done
    end=$(date +%s%N)
    echo $(($2 * 1000000000 / (end - begin)))
}
median() { tr ' ' '\n' | grep . | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# waits SIZE: of each server and each number of clients.
waits() {
    echo "$1 bytes, ${RATE:-100} messages/s for $turns turns of $length s each: messages/s, and ms until the 250: median, 99 of 100, longest"
    for sessions in ${SESSIONS:-1 20 100}; do
        for _ in $(seq "$turns"); do
            for name in $names; do
                start "$name"
                echo "sessions $sessions, $name: $(python3 benches/dot.py "$sessions" "$length" "$1" "$port" "${RATE:-100}")"
                stop
            done
        done
    done
}

for size in $sizes; do
    [ -z "$latency" ] || { waits "$size"; continue; }
    echo "$size bytes, $turns turns of about $length s each, messages/s: median (all)"
    for sessions in ${SESSIONS:-1 20 100}; do
        for reuse in "-d" ""; do
            a="" p="" s=""
            for _ in $(seq "$turns"); do
                for name in $names; do
                    start "$name"
                    # A short run first: it warms what is there to be warmed, and says how many fit into the time.
                    n=$((sessions * 20))
                    r=$(once "$sessions" "$n" "$size" "$reuse")
                    n=$((r * length > n ? r * length : n))
                    r=$(once "$sessions" "$n" "$size" "$reuse")
                    case $name in
                    aldis) a="$a $r" ;;
                    postfix) p="$p $r" ;;
                    sink) s="$s $r" ;;
                    esac
                    stop
                done
            done
            ma=$(echo "$a" | median) mp=$(echo "$p" | median) ms=$(echo "$s" | median)
            kind=$([ -n "$reuse" ] && echo reused || echo "one message each")
            line="sessions $sessions, connections $kind: aldis $ma (${a# }), postfix $mp (${p# })"
            if [ -n "$through" ]; then
                echo "$line; of postfix $((100 * ma / mp)) %"
            else
                echo "$line, smtp-sink $ms (${s# }); of postfix $((100 * ma / mp)) %, of smtp-sink $((100 * ma / ms)) %"
            fi
        done
    done
done
