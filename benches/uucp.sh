#!/usr/bin/env bash
# How long 10 KiB take over a half-duplex HF modem: UUCP's protocols, and Aldis, over the same simulated modems, at the same losses, in
# real time. Every cell has a bridge of its own, and all run side by side. Prints a table.
#
#   benches/uucp.sh [LOSSES] [RUNNERS]     defaults "0 0.05" and "g i y aldis"
#
# A runner may bring parameters of its own instead of those below: g:window=3,packet-size=1024.
#
# ALDIS_BIN, ALDIS_SIM: the programs [a fresh release build]; SEEDS: one cell for each ["1 2 3 4 5 6 7 8"]; AT_ONCE: cells side by side
# [4]; PATIENCE: seconds until a cell is given up [1200]; KEEP: a directory that keeps configurations and logs; DEBUG: what uucico logs
# [abnormal]. Needs Debian's uucp and python3.
#
# 2400 bit/s, short interleaver, turnaround 2 s, losses by cells of 262 bytes, both ways. UUCP writes to a terminal whose bytes key the
# modem, and lets go 0.5 s after the last. Aldis keys by the lines. Time runs from the first carrier until the far side has the whole file.
set -eu
cd "$(dirname "$0")/.."
losses=${1:-0 0.05}
runners=${2:-g i y aldis}
patience=${PATIENCE:-1200}
seeds=${SEEDS:-1 2 3 4 5 6 7 8}
at_once=${AT_ONCE:-4}
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
[ -p "$work/never" ] || mkfifo "$work/never"
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

# The modems of a cell.
bridge() { # CELL LOSS SEED [LINES OF EVERY PORT]
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
    if [ -n "${4:-}" ]; then
        printf '\n[[port]]\nstation = "%s"\nkind = "pty"\n%s\n' ship "$4" shore "$4" >>"$1/scenario.toml"
    fi
    "$sim" bridge "$1/scenario.toml" --dir "$1/ports" --seed "$3" >"$1/air" 2>"$1/bridge.err" &
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

# Waits until the shore has FILE, which both programs put there by renaming, and tells how long after the first carrier that was. Forks
# nothing: many cells wait at once, and time is what is measured.
await() { # CELL FILE
    local begun="" sending="" found micros end=$((SECONDS + patience))
    while [ "$SECONDS" -lt "$end" ]; do
        if [ -z "$begun" ] && [[ $(<"$1/air") == *antenna-on* ]]; then begun=${EPOCHREALTIME/[.,]/}; fi
        # UUCP logs when its sessions are through with greetings and the file itself begins.
        if [ -z "$sending" ] && [ -e "$1/ship/log" ] && [[ $(<"$1/ship/log") == *" Sending "* ]]; then sending=${EPOCHREALTIME/[.,]/}; fi
        # A Maildir's file has a name of its own.
        for found in $2; do
            if [ -n "$begun" ] && [ -e "$found" ]; then
                micros=$((${EPOCHREALTIME/[.,]/} - begun))
                printf '%d.%d\n' $((micros / 1000000)) $((micros / 100000 % 10)) >"$1/whole_s"
                micros=$((micros - ${sending:-$begun} + begun))
                printf '%d.%d\n' $((micros / 1000000)) $((micros / 100000 % 10)) >"$1/file_s"
                return
            fi
        done
        # Nobody writes there: a pause without a process.
        read -rt 0.2 <>"$work/never" || true
    done
}

uucp_node() { # CELL NAME PEER RUNNER
    local d=$1/$2 protocol=${4%%:*} parameters
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
debug ${DEBUG:-abnormal}
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
protocol $protocol
SYS
    case $4 in
    *:*) parameters=${4#*:} ;;
    g) parameters=window=7,packet-size=512,timeout=20,retries=30,init-timeout=15,init-retries=4,startup-retries=1,errors=1000 ;;
    i) parameters=window=16,packet-size=1024,timeout=60,retries=30,sync-timeout=15,sync-retries=30,errors=1000 ;;
    y) parameters=packet-size=1024,timeout=60 ;;
    esac
    tr , '\n' <<<"$parameters" | sed -e "s/^/protocol-parameter $protocol /" -e 's/=/ /' >>"$d/sys"
}

uucp_cell() { # CELL LOSS SEED RUNNER
    local d=$1 call
    bridge "$d" "$2" "$3" 'unkey_after = "500ms"'
    uucp_node "$d" ship shore "$4"
    uucp_node "$d" shore ship "$4"
    uucp -I "$d/ship/config" -r "$work/message" "shore!$d/shore/public/message"
    # The one that answers sends the first word; whoever fails is started again.
    (while :; do uucico -I "$d/shore/config" -r0 <"$d/ports/shore.tty" >"$d/ports/shore.tty" 2>>"$d/shore.err" || true; sleep 1; done) &
    echo $! >>"$d/pids"
    call="uucico -I $d/ship/config -r1 -f -S shore -p modem"
    (while :; do $call 2>>"$d/ship.err" || true; echo again >>"$d/calls"; sleep 5; done) &
    echo $! >>"$d/pids"
    await "$d" "$d/shore/public/message"
    halt "$d"
}

aldis_cell() { # CELL LOSS SEED
    local d=$1 name other number to
    bridge "$d" "$2" "$3"
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
    await "$d" "$d/shore/state/maildir/watch/new/*"
    halt "$d"
}

running=()
for loss in $losses; do
    for seed in $seeds; do
        for runner in $runners; do
            # Whatever has its file, or has had its time, makes room.
            while [ ${#running[@]} -ge "$at_once" ]; do
                sleep 1
                left=()
                for pid in "${running[@]}"; do if kill -0 "$pid" 2>/dev/null; then left+=("$pid"); fi; done
                running=("${left[@]}")
            done
            # A socket's path is short.
            cell=$work/${#cells[@]}
            mkdir -p "$cell"
            : >"$cell/pids"
            echo "$runner $loss $seed" >"$cell/what"
            cells+=("$cell")
            case $runner in
            aldis) aldis_cell "$cell" "$loss" "$seed" & ;;
            *) uucp_cell "$cell" "$loss" "$seed" "$runner" & ;;
            esac
            running+=($!)
        done
    done
done
for pid in "${running[@]}"; do wait "$pid" || true; done

date -u '+%Y-%m-%d %H:%M UTC'
echo "$("$aldis" --version); $(uucico --version 2>&1 | head -1); patience $patience s; load $(cut -d' ' -f1-3 /proc/loadavg)"
for cell in "${cells[@]}"; do
    # Carrier of both stations until the file was whole.
    awk -v what="$(cat "$cell/what")" -v whole="$(cat "$cell/whole_s" 2>/dev/null || true)" \
        -v file="$(cat "$cell/file_s" 2>/dev/null || true)" -v calls="$(cat "$cell/calls" 2>/dev/null | wc -l)" '
        { at = substr($1, 2) + 0 }
        $2 == "antenna-on" { if (first == "") first = at; if (whole == "" || at <= first + whole) { on[$3] = at; keys++ } }
        $2 == "antenna-off" && ($3 in on) { air += at - on[$3]; delete on[$3] }
        END { print what, whole == "" ? "never" : whole, file == "" ? "-" : file, air + 0, keys + 0, calls + 1 }' "$cell/air"
done >"$work/results"
printf '%-6s %5s %10s %8s %8s %9s %8s  %s\n' loss seed whole_s file_s air_s key-downs sessions who
awk '{ printf "%-6s %5s %10s %8s %8.1f %9d %8d  %s\n", $2, $3, $4, $5, $6, $7, $8, $1 }' "$work/results"
echo
printf '%-6s %6s %8s %8s %8s %8s %8s %9s  %s\n' loss cells mean_s least_s most_s file_s air_s key-downs who
awk '
    { key = $2 " " $1; if (!(key in cells)) order[++n] = key; cells[key]++; air[key] += $6; keys[key] += $7 }
    $4 == "never" { never[key]++; next }
    { done[key]++; sum[key] += $4; file[key] += $5; if (!(key in least) || $4 < least[key]) least[key] = $4; if ($4 > most[key]) most[key] = $4 }
    END { for (i = 1; i <= n; i++) { k = order[i]; split(k, w, " ")
        printf "%-6s %6d %8s %8s %8s %8s %8.1f %9.1f  %s%s\n", w[1], cells[k], done[k] ? sprintf("%.1f", sum[k] / done[k]) : "-",
            least[k], most[k], done[k] ? sprintf("%.1f", file[k] / done[k]) : "-", air[k] / cells[k], keys[k] / cells[k], w[2],
            never[k] ? sprintf(" (%d never)", never[k]) : "" } }' "$work/results"
