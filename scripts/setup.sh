#!/usr/bin/env bash
# Sets up .venv for the workstation: torch first and alone (its CPU build), then the pins of
# constraints/workstation.txt, then this project in editable mode.
set -euo pipefail
cd "$(dirname "$0")/.."

PIP_VERSION=25.3 # the first to know dependency groups is 25.1

say() { printf '\033[1m%s\033[0m\n' "$*"; }

find_python() {
  for candidate in "${EDGE_TSAD_PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
    "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    echo "$candidate"
    return
  done
  echo "setup: no Python 3.11 or newer with venv was found; install python3.11 and python3.11-venv" >&2
  exit 2
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif sudo -n true 2>/dev/null; then sudo -n "$@"; else return 1; fi
}

debian_packages() {
  command -v apt-get >/dev/null || return 0
  local missing=()
  PATH="$PATH:/usr/sbin:/sbin" command -v mosquitto >/dev/null || missing+=(mosquitto)
  PATH="$PATH:/usr/sbin:/sbin" command -v sshd >/dev/null || missing+=(openssh-server)
  command -v strace >/dev/null || missing+=(strace)
  # The tools of fleets that artefacts of `edge-tsad emit` are checked with.
  for tool in rauc swupdate mender-artifact cpio openssl; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  command -v unsquashfs >/dev/null || missing+=(squashfs-tools)
  # Debian's Python comes without ensurepip, which venv needs.
  (find_python >/dev/null 2>&1) || missing+=(python3-venv)
  [ ${#missing[@]} -eq 0 ] && return 0
  say "Installing Debian packages: ${missing[*]}"
  if ! { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null; }; then
    echo "setup: could not install ${missing[*]}; the demo uses its embedded broker, and tests" \
      "that start these programs are skipped" >&2
  fi
}

debian_packages
python=$(find_python)
[ -x .venv/bin/python ] || { say "Creating .venv with $python"; "$python" -m venv .venv; }
pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }

# torch alone and first: with the others in the same call, pip may settle on a newer build that
# brings gigabytes of CUDA packages.
pip install "pip==$PIP_VERSION"
say "Installing torch (CPU)"
pip install "$(grep -E '^torch==' constraints/workstation.txt)"
say "Installing the pins"
pip install --constraint constraints/workstation.txt --editable '.[all]' --group dev
pip check
touch .venv/.ready
say "Ready: .venv/bin/edge-tsad"
