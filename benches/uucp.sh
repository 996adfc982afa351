#!/usr/bin/env bash
# How long 10 KiB take over a half-duplex HF modem: UUCP's protocols, and Aldis, over the same simulated modems, at the same losses, in
# real time. Every cell has a bridge of its own, and all run side by side. Prints a table.
#
#   benches/uucp.sh [LOSSES] [RUNNERS]     defaults "0 0.05" and "g i y aldis"
#
# ALDIS_BIN, ALDIS_SIM: the programs [a fresh release build]; PATIENCE: seconds until a cell is given up [1200]; SEED [1];
# KEEP: a directory that keeps configurations and logs. Needs Debian's uucp and python3.
#
# 2400 bit/s, short interleaver, turnaround 2 s, losses by cells of 262 bytes, both ways. UUCP writes to a terminal whose bytes key the
# modem, and lets go 0.5 s after the last; it is told to wait 60 s for an answer, where its own defaults are 10 to 30 s, and to try
# often. Aldis keys by the lines and waits for nothing. Time runs from the first carrier until the far side has the whole file.
set -eu
cd "$(dirname "$0")/.."
losses=${1:-0 0.05}
runners=${2:-g i y aldis}
patience=${PATIENCE:-1200}
seed=${SEED:-1}
aldis=${ALDIS_BIN:-}
sim=${ALDIS_SIM:-}
if [ -z "$aldis" ] || [ -z "$sim" ]; then
    cargo build --release --locked --quiet --workspace --bins >&2
    aldis=${CARGO_TARGET_DIR:-target}/release/aldis
    sim=${CARGO_TARGET_DIR:-target}/release/aldis-sim
fi
aldis=$(realpath "$aldis")
sim=$(realpath "$sim")
command -v uucico >/dev/null || PATH=$PATH:/usr/sbin:/usr/lib/uucp
command -v uucico >/dev/null || { echo "uucico is missing: apt-get install uucp" >&2; exit 2; }
work=${KEEP:-$(mktemp -d "${TMPDIR:-/tmp}/aldis-uucp.XXXXXX")}
mkdir -p "$work"
work=$(realpath "$work")
cells=()
# Ends what a cell started.
halt() {
    local pid children
    while read -r pid; do
        children=$(ps -o pid= --ppid "$pid" || true)
        # shellcheck disable=SC2086  # One word each.
        kill "$pid" $children 2>/dev/null || true
    done <"$1/pids"
    : >"$1/pids"
}
finish() {
    local cell
    for cell in "${cells[@]}"; do halt "$cell"; done
    wait 2>/dev/null || true
    [ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap finish EXIT

# 10 KiB that nothing makes smaller but for the header, the same for everybody.
python3 - "$work/message" <<'PYTHON'
import random, sys
chance = random.Random(1)
head = (b"From: <ops@ship.example>\r\nTo: <watch@shore.example>\r\nSubject: exercise\r\nDate: Sat, 28 Nov 2026 08:00:00 +0000\r\n"
        b"Message-ID: <1@ship.example>\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n"
        b"Content-Transfer-Encoding: 8bit\r\n\r\n")
body, line = bytearray(), 0
while len(head) + len(body) + 2 < 10240:
    if line == 900:
        body += b"\r\n"
        line = 0
        continue
    byte = chance.randrange(256)
    if byte not in (0, 10, 13):
        body.append(byte)
        line += 1
open(sys.argv[1], "wb").write((head + bytes(body))[:10238] + b"\r\n")
PYTHON

key=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
now() { date +%s.%N; }

# The modems of a cell: CELL LOSS [LINES OF EVERY PORT].
bridge() {
    cat >"$1/scenario.toml" <<TOML
name = "one cell"
duration = "24h"

[waveform]
rate = "2400bps"
interleaver = "S"

[modem]
turnaround = "2s"

[channel]
cell = "262B"
cell_loss = $2

[[station]]
name = "ship"

[[station]]
name = "shore"
TOML
    if [ -n "${3:-}" ]; then
        printf '\n[[port]]\nstation = "%s"\nkind = "pty"\n%s\n' ship "$3" shore "$3" >>"$1/scenario.toml"
    fi
    "$sim" bridge "$1/scenario.toml" --dir "$1/ports" --seed "$seed" >"$1/air" 2>"$1/bridge.err" &
    echo $! >>"$1/pids"
    for _ in $(seq 100); do
        if [ -e "$1/ports/shore.lines" ]; then
            # uucico runs as its own user.
            chmod 755 "$work" "$1" "$1/ports"
            chmod 666 "$1/ports/ship.tty" "$1/ports/shore.tty"
            return
        fi
        sleep 0.1
    done
    cat "$1/bridge.err" >&2
    exit 1
}

# Waits until the shore has FILE whole, and tells how long after the first carrier that was: CELL FILE BYTES.
await() {
    local begun="" end
    end=$(($(date +%s) + patience))
    while [ "$(date +%s)" -lt "$end" ]; do
        if [ -z "$begun" ] && grep -q antenna-on "$1/air"; then begun=$(now); fi
        # shellcheck disable=SC2086  # A Maildir's file has a name of its own.
        if [ "$(cat $2 2>/dev/null | wc -c)" -ge "$3" ]; then
            awk -v a="$begun" -v b="$(now)" 'BEGIN { printf "%.1f\n", b - a }' >"$1/whole_s"
            return
        fi
        sleep 0.1
    done
}

uucp_node() { # CELL NAME PEER PROTOCOL
    local d=$1/$2
    mkdir -p "$d/spool" "$d/public" "$d/lock"
    chmod -R 777 "$d"
    cat >"$d/config" <<CONFIG
nodename $2
spool $d/spool
pubdir $d/public
lockdir $d/lock
logfile $d/log
statfile $d/stats
debugfile $d/debug
sysfile $d/sys
portfile $d/port
CONFIG
    cat >"$d/port" <<PORT
port modem
type direct
device $1/ports/$2.tty
speed 9600
carrier false
hardflow false
PORT
    cat >"$d/sys" <<SYS
system $3
time any
max-retries 1000
port modem
chat ""
chat-timeout 600
local-send /
local-receive /
remote-send /
remote-receive /
protocol $4
SYS
    case $4 in
    g) printf 'protocol-parameter g %s\n' 'window 7' 'packet-size 512' 'timeout 60' 'retries 30' 'init-timeout 60' 'init-retries 30' \
        'startup-retries 30' 'errors 1000' >>"$d/sys" ;;
    i) printf 'protocol-parameter i %s\n' 'window 16' 'packet-size 1024' 'timeout 60' 'retries 30' 'sync-timeout 60' 'sync-retries 30' \
        'errors 1000' >>"$d/sys" ;;
    y) printf 'protocol-parameter y %s\n' 'packet-size 1024' 'timeout 120' >>"$d/sys" ;;
    esac
}

uucp_cell() { # CELL LOSS PROTOCOL
    local d=$1 call
    bridge "$d" "$2" 'unkey_after = "500ms"'
    uucp_node "$d" ship shore "$3"
    uucp_node "$d" shore ship "$3"
    uucp -I "$d/ship/config" -r "$work/message" "shore!$d/shore/public/message"
    # The one that answers sends the first word; whoever fails is started again.
    (while :; do uucico -I "$d/shore/config" -r0 <"$d/ports/shore.tty" >"$d/ports/shore.tty" 2>>"$d/shore.err" || true; sleep 1; done) &
    echo $! >>"$d/pids"
    call="uucico -I $d/ship/config -r1 -f -S shore -p modem"
    (while :; do $call 2>>"$d/ship.err" || true; echo again >>"$d/calls"; sleep 5; done) &
    echo $! >>"$d/pids"
    await "$d" "$d/shore/public/message" 10240
    halt "$d"
}

aldis_cell() { # CELL LOSS
    local d=$1 name other number to
    bridge "$d" "$2"
    for name in ship shore; do
        case $name in ship) other=shore number=0 ;; *) other=ship number=1 ;; esac
        mkdir -p "$d/$name"
        cat >"$d/$name/profile.toml" <<TOML
[node]
name = "$name"
hostname = "mail.$name.example"
state_dir = "state"
clock = "trusted"

[[listener]]
name = "relay"
kind = "relay"
address = "127.0.0.1:0"
trust = ["127.0.0.0/8"]

[[route]]
match = "$name.example"
to = "local"

[[route]]
match = "*"
to = "peer:$other"

[[peer]]
name = "$other"
station = $((1 - number))
protection = "aead"
keys = [{ id = 0, hex = "$key" }]

[[bearer]]
name = "hf1"
device = "$d/ports/$name.tty"
keying = { socket = "$d/ports/$name.lines" }
modem = "simulated"
rate = "2400bps"
interleaver = "S"
turnaround = "2s"
station = $number
peers = ["$other"]
emcon = "open"
TOML
        chmod 600 "$d/$name/profile.toml"
        (cd "$d/$name" && exec "$aldis" run --profile profile.toml >ready 2>log) &
        echo $! >>"$d/pids"
    done
    for _ in $(seq 100); do
        grep -qs '^ready' "$d/ship/ready" && grep -qs '^ready' "$d/shore/ready" && break
        sleep 0.1
    done
    to=$(sed -n 's/.* relay=\([^ ]*\).*/\1/p' "$d/ship/ready")
    python3 - "$to" "$work/message" <<'PYTHON'
import smtplib, sys
host, port = sys.argv[1].rsplit(":", 1)
smtp = smtplib.SMTP(host, int(port), "client.ship.example")
smtp.sendmail("ops@ship.example", ["watch@shore.example"], open(sys.argv[2], "rb").read(), ["BODY=8BITMIME"])
smtp.quit()
PYTHON
    await "$d" "$d/shore/state/maildir/watch/new/*" 10240
    halt "$d"
}

for loss in $losses; do
    for runner in $runners; do
        cell=$work/$runner-$loss
        mkdir -p "$cell"
        : >"$cell/pids"
        cells+=("$cell")
        case $runner in
        aldis) aldis_cell "$cell" "$loss" & ;;
        *) uucp_cell "$cell" "$loss" "$runner" & ;;
        esac
        echo $! >>"$work/waits"
    done
done
# Whatever has its file, or has had its time.
while read -r pid; do wait "$pid" || true; done <"$work/waits"
rm -f "$work/waits"

date -u '+%Y-%m-%d %H:%M UTC'
echo "$("$aldis" --version); $(uucico --version 2>&1 | head -1); seed $seed; patience $patience s"
printf '%-8s %-6s %12s %10s %14s %s\n' who loss whole_s air_s key-downs sessions
for cell in "${cells[@]}"; do
    name=$(basename "$cell")
    # Carrier of both stations until the file was whole.
    awk -v who="${name%-*}" -v loss="${name##*-}" -v whole="$(cat "$cell/whole_s" 2>/dev/null || true)" \
        -v calls="$(cat "$cell/calls" 2>/dev/null | wc -l)" '
        { at = substr($1, 2) + 0 }
        $2 == "antenna-on" { if (first == "") first = at; if (whole == "" || at <= first + whole) { on[$3] = at; keys++ } }
        $2 == "antenna-off" && ($3 in on) { air += at - on[$3]; delete on[$3] }
        END { printf "%-8s %-6s %12s %10.1f %14d %d\n", who, loss, whole == "" ? "never" : whole, air, keys, calls + 1 }' "$cell/air"
done
