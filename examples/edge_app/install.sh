#!/bin/sh
# Installs or updates the service: sudo sh install.sh BUNDLE [WHAT PIP INSTALLS...]
# WHAT is edgedd by default; a checkout or a wheel do as well. DESTDIR is for those who build system images.
set -eu

bundle=${1:?which bundle? usage: install.sh BUNDLE [WHAT PIP INSTALLS...]}
shift
here=$(dirname "$0")
root=${DESTDIR:-}
app=$root/opt/edge-app

if [ -z "$root" ] && ! id edge-app >/dev/null 2>&1; then
    useradd --system --user-group --no-create-home --shell /usr/sbin/nologin edge-app
fi
mkdir -p "$app" "$root/etc/systemd/system"
if [ ! -x "$app/venv/bin/edgedd" ]; then
    python3 -m venv "$app/venv"
    "$app/venv/bin/pip" install --no-cache-dir "${@:-edgedd}"
fi
install -m 644 "$here"/*.py "$app"
install -m 644 "$here/edge-app.service" "$root/etc/systemd/system"
"$app/venv/bin/python" -m compileall -q "$app"/*.py
"$app/venv/bin/edgedd" install "$bundle" "$app/bundles"
if [ -z "$root" ]; then
    systemctl daemon-reload
fi
