#!/usr/bin/env bash
# A Dovecot of its own, for tests, with IMAP and URLAUTH on 127.0.0.1, or without for the logins of a Postfix. Needs root, as its
# master does.
#
#   dovecot.sh start DIR PORT    users jack, jill and submit with the password "secret"; STARTTLS with the files CERT and KEY; its URLs
#                                name port DOOR where that is set
#   dovecot.sh start DIR sasl    user ship with the password PASSWORD, by PLAIN and SCRAM-SHA-256, asked by the socket DIR/sasl
#   dovecot.sh stop DIR
set -eu
D=$2
if [ "$1" = stop ]; then
    [ ! -s "$D/proxy.pid" ] || kill "$(cat "$D/proxy.pid")" 2>/dev/null || true
    [ ! -s "$D/run/master.pid" ] || kill "$(cat "$D/run/master.pid")" 2>/dev/null || true
    exit 0
fi
port=$3
if [ "$port" = sasl ]; then
    mkdir -p "$D/run"
    echo "ship:{PLAIN}$PASSWORD" >"$D/users"
    chmod 644 "$D/users"
    cat >"$D/dovecot.conf" <<C
base_dir = $D/run
log_path = $D/log
protocols = none
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain scram-sha-256
passdb {
  driver = passwd-file
  args = $D/users
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=$D/run
}
service auth {
  unix_listener $D/sasl {
    mode = 0666
  }
}
C
    exec dovecot -c "$D/dovecot.conf" >"$D/out" 2>&1 </dev/null
fi
mkdir -p "$D/run" "$D/home"
chown nobody "$D/home"
for user in jack jill submit; do echo "$user:{PLAIN}secret" >>"$D/users"; done
chmod 644 "$D/users"
cat >"$D/dovecot.conf" <<C
base_dir = $D/run
log_path = $D/log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <$CERT
ssl_key = <$KEY
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = maildir:~/mail
mail_attribute_dict = file:%h/attributes
imap_urlauth_host = localhost
imap_urlauth_port = ${DOOR-$port}
imap_urlauth_submit_user = submit
passdb {
  driver = passwd-file
  args = $D/users
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=$D/home/%u
}
service auth {
  unix_listener token-login/mended-tokenlogin {
    mode = 0666
  }
}
service imap-login {
  inet_listener imap {
    port = $port
  }
  inet_listener imaps {
    port = 0
  }
}
C
dovecot -c "$D/dovecot.conf" >"$D/out" 2>&1 </dev/null
setsid python3 "$(dirname "$0")/token_proxy.py" "$D/run/token-login" >"$D/proxy" 2>&1 </dev/null &
echo $! >"$D/proxy.pid"
