#!/usr/bin/env bash
# A Postfix of its own, for tests: never the system's. Needs root, as Postfix's master does.
#
#   postfix.sh start DIR PORT relay NEXT-HOP-PORT     takes mail from 127.0.0.1 and relays all of it
#   postfix.sh start DIR PORT lmtp NEXT-HOP-PORT      takes mail from 127.0.0.1 and hands all of it on over LMTP
#   postfix.sh start DIR PORT deliver DOMAIN [CERTIFICATE KEY]
#                                                     takes mail for DOMAIN, any user, into the Maildir DIR/mail/box; with a
#                                                     certificate inside TLS alone; with SASL, a socket of Dovecot's, only from who logs in
#   postfix.sh start DIR PORT both DOMAIN NEXT-PORT   the same for DOMAIN, and relays all else; over STARTTLS both ways (files CERT, KEY);
#                                                     nobody@DOMAIN is refused, later@DOMAIN put off
#   postfix.sh start DIR PORT hold                    takes mail and keeps it: what a load generator measures
#   postfix.sh stop DIR
set -eu
D=$2
if [ "$1" = stop ]; then
    postfix -c "$D/etc" stop 2>/dev/null || true
    exit 0
fi
port=$3
who=permit_mynetworks
daemons=$(postconf -d -h daemon_directory)
commands=$(postconf -d -h command_directory)
mkdir -p "$D/etc" "$D/data" "$D/queue" "$D/mail"
chown postfix "$D/data" "$D/mail"
chmod 755 "$D"
case $4 in
relay)
    special="relayhost = [127.0.0.1]:$5"
    ;;
lmtp)
    special="default_transport = lmtp:inet:[127.0.0.1]:$5
relay_transport = lmtp:inet:[127.0.0.1]:$5
default_destination_recipient_limit = 50"
    ;;
deliver | both)
    special="virtual_mailbox_domains = $5
virtual_mailbox_base = $D/mail
virtual_mailbox_maps = static:box/
virtual_minimum_uid = 1
virtual_uid_maps = static:$(id -u postfix)
virtual_gid_maps = static:$(id -g postfix)"
    if [ "$4" = deliver ] && [ $# -gt 5 ]; then
        special="$special
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = $6
smtpd_tls_key_file = $7"
        if [ -n "${SASL-}" ]; then
            who=permit_sasl_authenticated
            special="$special
smtpd_sasl_type = dovecot
smtpd_sasl_path = $SASL
smtpd_sasl_auth_enable = yes
smtpd_tls_auth_only = yes
smtpd_sasl_authenticated_header = yes"
        fi
    fi
    ;;
hold)
    special="default_transport = discard:
relay_transport = discard:
defer_transports = discard"
    ;;
esac
if [ "$4" = both ]; then
    special="$special
relayhost = [127.0.0.1]:$6
smtpd_tls_security_level = may
smtpd_tls_cert_file = $CERT
smtpd_tls_key_file = $KEY
smtpd_tls_received_header = yes
smtp_tls_security_level = encrypt
smtpd_recipient_restrictions = check_recipient_access inline:{
 { nobody@$5 = 550 5.1.1 nobody here } { later@$5 = 450 4.2.0 later } }, permit"
fi
cat >"$D/etc/main.cf" <<C
compatibility_level = 3.6
queue_directory = $D/queue
command_directory = $commands
daemon_directory = $daemons
data_directory = $D/data
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.test
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = $who, reject
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
# A message is relayed as it came: no field is added that the far side would have to carry.
always_add_missing_headers = no
local_header_rewrite_clients =
default_process_limit = 120
qmgr_message_active_limit = 50000
qmgr_message_recipient_limit = 50000
in_flow_delay = 0
minimal_backoff_time = 2s
queue_run_delay = 2s
maillog_file_prefixes = $D
maillog_file = $D/log
$special
C
cat >"$D/etc/master.cf" <<C
127.0.0.1:$port inet n - n - 120 smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - n - 60 smtp
relay unix - - n - 60 smtp
lmtp unix - - n - 10 lmtp
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - 20 discard
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
C
postfix -c "$D/etc" start
