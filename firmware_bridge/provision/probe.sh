# What a gateway is and has, as KEY=VALUE lines; nothing is changed.
prefix=${1:-}
say() { printf '%s=%s\n' "$1" "$2"; }
say edge_tsad_probe 1
say codename "$( (. /etc/os-release && printf %s "$VERSION_CODENAME") 2>/dev/null)"
say architecture "$(dpkg --print-architecture 2>/dev/null)"
say machine "$(uname -m)"
say python "$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
say venv "$(python3 -c 'import venv; print("yes")' 2>/dev/null)"
say seconds "$(date +%s)"
here=$prefix/
[ -d "$here" ] || here=/
say free_kb "$(df -Pk "$here" 2>/dev/null | awk 'NR==2 {print $4}')"
say memory_kb "$(awk '/^MemTotal:/ {print $2}' /proc/meminfo 2>/dev/null)"
say systemd "$([ -d /run/systemd/system ] && echo yes)"
if [ "$(id -u)" = 0 ]; then say root yes; elif sudo -n true 2>/dev/null; then say root sudo; else say root no; fi
say installed "$(cat "$prefix/opt/edge-tsad/installed" 2>/dev/null)"
for package in python3-numpy python3-cffi-backend python3-psutil python3-onnxruntime; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] && say package "$package"
done
say config "$([ -e "$prefix/etc/edge-tsad/gateway.toml" ] && echo yes)"
say keys "$([ -e "$prefix/var/lib/edge-tsad-agent/trusted.json" ] && echo yes)"
say end 1
