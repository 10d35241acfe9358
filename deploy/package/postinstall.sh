#!/bin/sh
# After the package was installed: who the service runs as, and whose its settings are.
set -e
if ! getent group barong >/dev/null 2>&1; then
    if command -v groupadd >/dev/null; then groupadd --system barong; else addgroup -S barong; fi
fi
if ! getent passwd barong >/dev/null 2>&1; then
    if command -v useradd >/dev/null; then
        useradd --system --gid barong --home-dir /var/lib/barong --no-create-home --shell /usr/sbin/nologin barong
    else
        adduser -S -D -H -h /var/lib/barong -s /sbin/nologin -G barong barong
    fi
fi
install -d -o barong -g barong -m 0700 /var/lib/barong
chown root:barong /etc/barong /etc/barong/barong.env
chmod 0750 /etc/barong
chmod 0640 /etc/barong/barong.env
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
