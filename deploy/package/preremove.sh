#!/bin/sh
# Before the package is removed, and not when it is upgraded: the service is stopped. Data and settings stay.
set -e
case "${1:-remove}" in
upgrade | 1) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
    systemctl disable --now barong.service || true
fi
