#!/bin/sh
# Run as root in the folder of what was carried along; every step may be repeated.
# PREFIX, MARK, CARRY, SEES_SYSTEM, APT, MEMORY_MAX, START come from settings.sh.
set -eu
cd "$(dirname "$0")"
. ./settings.sh
base=$PREFIX/opt/edge-tsad
agent=$PREFIX/var/lib/edge-tsad-agent
inbox=$agent/inbox
etc=$PREFIX/etc/edge-tsad
units=$PREFIX/etc/systemd/system
note() { printf 'edge-tsad: %s\n' "$*"; }

if [ -n "$APT" ]; then
  for wanted in $APT; do
    for file in debs/*.deb; do
      if [ "$(dpkg-deb -f "$file" Package)" = "$wanted" ]; then continue 2; fi
    done
    note "$wanted is not among the packages that were carried along; nothing was changed" >&2
    exit 3
  done
  note "installing carried packages"
  # Unlike dpkg alone, apt looks first whether the set is whole, and changes nothing if it is not.
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends --no-remove \
    "$PWD"/debs/*.deb >apt.txt 2>&1 || {
    note "the carried packages cannot be installed: $(grep -m 1 -e 'Depends:' -e '^E:' apt.txt)" >&2
    exit 3
  }
fi

if [ "$CARRY" = yes ]; then
  # A new environment beside the old one; the link is switched at once, at the end.
  new=$base/venv-$(date +%s)-$$
  mkdir -p "$base"
  python3 -m venv --without-pip $SEES_SYSTEM "$new"
  pip=$(ls wheels/pip-*.whl)
  note "installing wheels"
  "$new/bin/python" "$pip/pip" install --quiet --no-index --no-deps --disable-pip-version-check \
    --no-warn-script-location $(ls wheels/*.whl | grep -v '^wheels/pip-')
  "$new/bin/edge-tsad" --version >/dev/null
  "$new/bin/edge-tsad" doctor >doctor.txt 2>&1 || {
    rm -rf "$new"
    why=$(sed -n 's/  */ /g; /cannot be used/p' doctor.txt | head -n 1)
    note "no model could be run there, so nothing was changed: ${why:-$(tail -n 1 doctor.txt)}" >&2
    exit 3
  }
  sync
  ln -sfn "$(basename "$new")" "$base/.venv.new"
  mv -T "$base/.venv.new" "$base/venv"
  printf %s "$MARK" >"$base/installed.new"
  mv "$base/installed.new" "$base/installed"
  for old in "$base"/venv-*; do [ "$old" = "$new" ] || rm -rf "$old"; done
fi

if [ -z "$PREFIX" ]; then
  getent group edge-tsad >/dev/null || groupadd --system edge-tsad
  for user in edge-tsad edge-tsad-agent; do
    getent passwd $user >/dev/null ||
      useradd --system --gid edge-tsad --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin $user
  done
fi
mkdir -p "$agent" "$inbox" "$etc" "$units/edge-tsad.service.d"
[ -e "$agent/trusted.json" ] || [ ! -e trusted.json ] || cp trusted.json "$agent/trusted.json"
[ -e "$agent/agent.toml" ] || printf 'inbox = ["%s"]\n' "$inbox" >"$agent/agent.toml"
[ -e "$etc/gateway.toml" ] || [ ! -e gateway.toml ] || cp gateway.toml "$etc/gateway.toml"
if [ -z "$PREFIX" ]; then
  chown -R edge-tsad-agent:edge-tsad "$agent"
  chgrp edge-tsad "$etc"
fi
chmod 2755 "$agent"
chmod 2770 "$inbox"
for unit in units/*; do
  case $unit in
    *.conf) target=$units/edge-tsad.service.d/$(basename "$unit") ;;
    *) target=$units/$(basename "$unit") ;;
  esac
  sed -e "s|@EXECUTABLE@|$base/venv/bin/edge-tsad|" -e "s|@PYTHON@|$base/venv/bin/python|" \
    -e "s|@CONFIG@|$etc/gateway.toml|" -e "s|@STORE@|$agent|g" \
    -e "s|@MEMORY_MAX@|$MEMORY_MAX|" "$unit" >"$target"
done
# What `edge-tsad flash` calls: whoever may become the agent's user speaks with the agent.
cat >"$base/agent.new" <<END
#!/bin/sh
set -- $base/venv/bin/python -m firmware_bridge.agent "\$@"
[ -z "$PREFIX" ] && [ "\$(id -un)" != edge-tsad-agent ] || exec "\$@"
[ "\$(id -u)" != 0 ] || exec setpriv --reuid=edge-tsad-agent --regid=edge-tsad --init-groups "\$@"
exec sudo -n -u edge-tsad-agent "\$@"
END
chmod 755 "$base/agent.new"
mv "$base/agent.new" "$base/agent"
if [ "$START" = yes ]; then
  systemctl daemon-reload
  systemctl enable --quiet --now edge-tsad-agent.service
  # Without a bundle the runtime has nothing to run: the first one starts it.
  if [ -e "$etc/gateway.toml" ]; then systemctl enable --quiet --now edge-tsad.path; fi
  if [ "$CARRY" = yes ]; then systemctl restart edge-tsad-agent.service; systemctl try-restart edge-tsad.service; fi
fi
note "ready: $("$base/venv/bin/edge-tsad" --version)"
