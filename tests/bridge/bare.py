"""A whole Debian as a gateway: this machine's own, seen through an overlay, without any network.

What is done to it is real (its users, packages and units are made by root) and is gone with the
process that holds it; nothing of this machine changes. ssh reaches it through a sshd of its own,
which runs inside it and talks over a pipe.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bridge.conftest import SSHD, keygen

__all__ = ["Bare", "missing"]

HOLD = """set -e
mount -t tmpfs -o mode=755 tmpfs {base}
mkdir {base}/upper {base}/work {base}/root
mount -t overlay overlay -o lowerdir=/,upperdir={base}/upper,workdir={base}/work {base}/root
mount -t proc proc {base}/root/proc
mount --bind /dev {base}/root/dev
mount -t tmpfs tmpfs {base}/root/run
mount -t tmpfs tmpfs {base}/root/usr/local
mount -t tmpfs tmpfs {base}/root/root
mkdir {base}/root/run/sshd {base}/root/gateway
echo ready
exec sleep infinity
"""
CONFIG = """HostKey /gateway/host
PidFile none
UsePAM no
AuthorizedKeysFile /gateway/authorized
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
"""


def missing() -> str:
    """Why there can be none here; empty where there can."""
    release = Path("/etc/os-release")
    debian = release.exists() and "VERSION_CODENAME=bookworm" in release.read_text()
    if not debian or os.geteuid():
        return "it takes root on Debian bookworm"
    tools = [tool for tool in ("unshare", "nsenter", "chroot", "ssh") if not shutil.which(tool)]
    if tools or SSHD is None:
        return f"{', '.join(tools) or 'sshd'} is missing (apt install openssh-server)"
    return ""


class Bare:
    """A gateway called ``bare``; ``config`` is what a user's ssh reads. Close it at the end."""

    def __init__(self, folder: Path) -> None:
        base = folder / "machine"
        base.mkdir()
        command = ["unshare", "--mount", "--net", "sh", "-c", HOLD.format(base=base)]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout
        if self._holder.stdout.readline() != "ready\n":
            raise OSError("no overlay can be mounted here")
        self.root = Path(f"/proc/{self._holder.pid}/root{base}/root")
        own = self.root / "gateway"
        host, user = keygen(folder / "host"), keygen(folder / "user")
        shutil.copy(host, own / "host")
        shutil.copy(user.with_suffix(".pub"), own / "authorized")
        (own / "sshd_config").write_text(CONFIG)
        public = " ".join(host.with_suffix(".pub").read_text().split()[:2])
        (folder / "known").write_text(f"bare {public}\n")
        inside = f"nsenter --target {self._holder.pid} --mount --net chroot {base}/root"
        self._inside = inside.split()
        self.config = folder / "ssh_config"
        self.config.write_text(
            f"Host bare\n  User root\n  IdentityFile {user}\n  IdentitiesOnly yes\n"
            f"  IdentityAgent none\n  UserKnownHostsFile {folder}/known\n  HostKeyAlias bare\n"
            f"  ProxyCommand {inside} {SSHD} -i -f /gateway/sshd_config\n"
        )

    def run(self, *command: str) -> str:
        """What a program prints there.

        Raises:
            CalledProcessError: it failed.
        """
        done = subprocess.run(
            [*self._inside, *command], capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def close(self) -> None:
        """Let it vanish."""
        self._holder.kill()
        self._holder.communicate()
