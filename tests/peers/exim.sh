#!/usr/bin/env bash
# An Exim of its own, for tests, in a root directory of its own. Needs root.
#
#   exim.sh start DIR PORT DOMAIN NEXT-PORT    takes mail on 127.0.0.1 with STARTTLS; for DOMAIN, any user, into the Maildir DIR/box,
#                                              all else over STARTTLS to 127.0.0.1:NEXT-PORT; nobody@DOMAIN is refused,
#                                              later@DOMAIN put off
#   exim.sh stop DIR
#
# ROOT names where the packages are unpacked (private.sh unpack), CERT and KEY two PEM files.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
D=$2
if [ "$1" = stop ]; then
    [ ! -s "$D/pid" ] || kill "$(cat "$D/pid")" 2>/dev/null || true
    exit 0
fi
port=$3 domain=$4 next=$5
mkdir -p "$D"
cp -a "$ROOT" "$D/own"
user=$(id -u nobody) group=$(id -g nobody)
echo "Debian-exim:x:$user:$group::/:/bin/false" >>"$D/own/etc/passwd"
echo "Debian-exim:x:$group:" >>"$D/own/etc/group"
mkdir -p "$D/box" "$D/spool" "$D/own/etc/exim4"
cp "$CERT" "$D/own/etc/cert.pem"
cp "$KEY" "$D/own/etc/key.pem"
chown "$user:$group" "$D/box" "$D/spool" "$D/own/etc/key.pem"
cat >"$D/own/etc/exim4/exim4.conf" <<C
primary_hostname = exim.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = $port
spool_directory = $D/spool
log_file_path = $D/spool/%slog
pid_file_path = $D/spool/pid
keep_environment =
host_lookup =
rfc1413_hosts =
tls_advertise_hosts = *
tls_certificate = /etc/cert.pem
tls_privatekey = /etc/key.pem
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
chunking_advertise_hosts = *
acl_smtp_rcpt = to
acl_smtp_data = accept
queue_run_in_order = true
begin acl
to:
  deny domains = $domain
    local_parts = nobody
    message = 5.1.1 nobody here
  defer domains = $domain
    local_parts = later
    message = 4.2.0 later
  accept
begin routers
here:
  driver = accept
  domains = $domain
  transport = box
onward:
  driver = manualroute
  route_list = * 127.0.0.1 byname
  self = send
  transport = next
  no_more
begin transports
box:
  driver = appendfile
  directory = $D/box
  maildir_format
  user = Debian-exim
next:
  driver = smtp
  port = $next
  allow_localhost
  hosts_require_tls = *
  tls_verify_hosts =
  tls_try_verify_hosts =
begin retry
* * F,1h,2s
C
setsid "$here/private.sh" run "$D/own" /usr/sbin/exim4 -bdf -q2s >"$D/log" 2>&1 </dev/null &
echo $! >"$D/pid"
