#!/usr/bin/env bash
# An OpenSMTPD of its own, for tests, in a root directory of its own. Needs root.
#
#   opensmtpd.sh start DIR PORT DOMAIN NEXT-PORT    takes mail on 127.0.0.1; for DOMAIN, any user, into the Maildir DIR/box, all
#                                                   else over STARTTLS to 127.0.0.1:NEXT-PORT; nobody@DOMAIN is refused
#   opensmtpd.sh stop DIR
#
# ROOT names where the packages are unpacked (private.sh unpack). It offers no TLS: the one of Debian 12 (6.8.0p2) cannot serve it with
# OpenSSL 3, "SSL routines::EVP lib".
set -eu
here=$(cd "$(dirname "$0")" && pwd)
D=$2
if [ "$1" = stop ]; then
    [ ! -s "$D/pid" ] || kill -- -"$(cat "$D/pid")" 2>/dev/null || true
    exit 0
fi
port=$3 domain=$4 next=$5
mkdir -p "$D"
cp -a "$ROOT" "$D/own"
id=64000
for user in opensmtpd opensmtpq; do
    echo "$user:x:$id:$id::/var/empty:/bin/false" >>"$D/own/etc/passwd"
    echo "$user:x:$id:" >>"$D/own/etc/group"
    id=$((id + 1))
done
mkdir -p "$D/box" "$D/own/var/spool/smtpd" "$D/own/var/run" "$D/own/var/empty" "$D/own/var/lib/opensmtpd/empty"
chmod 711 "$D/own/var/spool/smtpd"
chown nobody "$D/box"
cat >"$D/own/etc/smtpd.conf" <<C
table users { "@" = "nobody" }
listen on 127.0.0.1 port $port hostname smtpd.test
action box maildir "$D/box" virtual <users>
action next relay host "smtp+tls://127.0.0.1:$next" tls no-verify helo smtpd.test
match from any for rcpt-to "nobody@$domain" reject
match from any for domain "$domain" action box
match from any for any action next
C
setsid "$here/private.sh" run "$D/own" /usr/sbin/smtpd -d -f /etc/smtpd.conf >"$D/log" 2>&1 </dev/null &
echo $! >"$D/pid"
