#!/usr/bin/env bash
# A root directory of its own for a Debian package that must not be installed beside others. Needs root.
#
#   private.sh unpack ROOT PACKAGE...     downloads and unpacks packages; what they link to is the system's
#   private.sh run ROOT COMMAND...        runs a command in it; libraries, /bin and /tmp are the system's
set -eu
root=$2
case $1 in
unpack)
    shift 2
    [ -e "$root/unpacked" ] && exit 0
    rm -rf "$root" && mkdir -p "$root/debs"
    (cd "$root/debs" && apt-get download -q "$@")
    for file in "$root"/debs/*.deb; do dpkg -x "$file" "$root"; done
    rm -r "$root/debs"
    mkdir -p "$root"/{proc,dev,tmp,run,etc,lib64,bin,root,var/tmp,lib/x86_64-linux-gnu}
    for f in passwd group shadow nsswitch.conf ssl hosts services; do [ ! -e /etc/$f ] || cp -r /etc/$f "$root/etc/"; done
    touch "$root/unpacked"
    ;;
run)
    shift 2
    export root
    exec unshare -m bash -c '
        mount --make-rprivate / 
        for d in proc dev tmp lib64 lib/x86_64-linux-gnu bin; do mount --rbind "/$d" "$root/$d"; done
        exec chroot "$root" "$@"' run "$@"
    ;;
esac
