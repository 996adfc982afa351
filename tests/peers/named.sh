#!/usr/bin/env bash
# A DNS server of its own, for tests: BIND's named, authoritative alone, on loopback, with zones that the test writes.
#
#   named.sh start DIR PORT PARENT[:KIND] CHILD[:KIND]...
#                            serves each zone from DIR/ZONE.db. KIND is `plain`, `signed` (NSEC3), `nsec` (signed), or `bogus`: signed,
#                            and then every MX of preference 10 and every TLSA 3 1 1 altered. Delegations from PARENT to signed
#                            children get their DS records. What to trust: DIR/anchor.key. Where DIR holds signed zones already they
#                            are served as they are.
#   named.sh stop DIR
set -eu
D=$2
if [ "$1" = stop ]; then
    [ ! -e "$D/named.pid" ] || kill "$(cat "$D/named.pid")" 2>/dev/null || true
    for _ in $(seq 100); do
        [ -e "$D/named.pid" ] || exit 0
        sleep 0.1
    done
    exit 1
fi
port=$3
shift 3
PATH="$PATH:/usr/sbin:/sbin"
cd "$D"
parent=$1
shift

# sign ZONE [OPTION...]: ZONE.db to ZONE.served, and dsset-ZONE.
sign() {
    dnssec-keygen -q -a ECDSAP256SHA256 -f KSK -n ZONE "$1" >/dev/null
    cat K"$1".+*.key >>"$1.db"
    dnssec-signzone -q -z "${@:2}" -o "$1" -f "$1.served" "$1.db" >/dev/null
}

if [ ! -e "${parent%:*}.served" ]; then
    for zone in "$@" "$parent"; do
        name=${zone%:*}
        case $zone in
        *:plain) cp "$name.db" "$name.served" ;;
        *)
            if [ "$zone" = "$parent" ]; then
                cat dsset-* >>"$name.db" 2>/dev/null || true
            fi
            case $zone in
            *:nsec) sign "$name" ;;
            *) sign "$name" -3 - -H 0 ;;
            esac
            ;;
        esac
        case $zone in
        *:bogus) sed -E -i 's/(MX[[:space:]]+)10 /\111 /; s/(TLSA[[:space:]]+3 1 )1 /\12 /' "$name.served" ;;
        esac
    done
    cp K"${parent%:*}".+*.key anchor.key 2>/dev/null || true
fi
{
    echo "options { directory \"$D\"; pid-file \"$D/named.pid\"; session-keyfile \"$D/session.key\"; recursion no;"
    echo "listen-on port $port { 127.0.0.1; }; listen-on-v6 { none; }; allow-query { any; }; dnssec-validation no; };"
    echo "controls { };"
    echo "logging { channel file { file \"$D/log\"; severity info; }; category default { file; }; };"
    for zone in "$parent" "$@"; do
        echo "zone \"${zone%:*}\" { type primary; file \"$D/${zone%:*}.served\"; };"
    done
} >named.conf
named -c "$D/named.conf"
for _ in $(seq 100); do
    if [ -e "$D/named.pid" ] && grep -q running "$D/log" 2>/dev/null; then exit 0; fi
    sleep 0.1
done
cat "$D/log" >&2
exit 1
