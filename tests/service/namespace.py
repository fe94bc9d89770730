"""A real systemd as process 1 of a namespace, which runs the unit that a gateway installs.

The namespace shares the machine's files but for ``/run``, ``/var`` and the user database, so that
what the unit's sandbox allows and forbids is what it does on a gateway.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_tsad.service import unit_text

SYSTEMD = Path("/lib/systemd/systemd")
TREE = Path(__file__).parents[2]
CGROUPS = Path("/sys/fs/cgroup")
HOME = Path("/run/edge")

BEGIN = """set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var
mkdir -p /run/systemd/system /run/edge/tree /run/edge/python /run/edge/site
cp {stage}/*.service {stage}/*.target /run/systemd/system/
cp -r {stage}/edge-tsad.service.d /run/systemd/system/
cp {stage}/home/* /run/edge/
chmod -R a+rX /run/edge
mount --bind {tree} /run/edge/tree
mount --bind {python} /run/edge/python
mount --bind {site} /run/edge/site
mount --bind {stage}/passwd /etc/passwd
mount --bind {stage}/group /etc/group
export container=other
exec {systemd} --system --unit=test.target --log-target=console --show-status=0
"""
TARGET = "[Unit]\nDescription=One service\nDefaultDependencies=no\nWants=edge-tsad.service\n"
DROP_IN = """[Unit]
DefaultDependencies=no
[Service]
Environment=PYTHONPATH=/run/edge/tree:/run/edge/site OMP_NUM_THREADS=1
Environment=LD_LIBRARY_PATH=/run/edge/python/lib
Environment=PYTHONDONTWRITEBYTECODE=1
StandardOutput=append:/run/edge/log
StandardError=append:/run/edge/log
"""


def missing() -> str:
    """Why no systemd can be started here; empty where it can."""
    if os.geteuid() != 0:
        return "NO ROOT: systemd is not tried for real"
    if not (SYSTEMD.exists() and shutil.which("unshare") and shutil.which("nsenter")):
        return "SYSTEMD IS MISSING: it is not tried for real (apt install systemd util-linux)"
    if Path("/proc/1/comm").read_text().strip() == "systemd":
        return "SYSTEMD RUNS THIS MACHINE: a second one would touch its control groups"
    tried = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount", "--cgroup", "mount", "--make-rprivate", "/"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    return f"NAMESPACES ARE REFUSED: {tried.stderr.strip()}" if tried.returncode else ""


class Machine:
    """What runs under process ``pid``, seen from outside."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def run(self, *command: str) -> str:
        """The output of a command within."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-m", "-p", *command],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.stdout + done.stderr

    def show(self, key: str) -> str:
        """A property of the service."""
        return self.run("systemctl", "show", "--value", "-p", key, "edge-tsad").strip()

    def file(self, path: Path) -> Path:
        """A file within, as this process can open it."""
        return Path(f"/proc/{self.pid}/root") / path.relative_to("/")

    @property
    def log(self) -> str:
        """What the service has said."""
        path = self.file(HOME / "log")
        return path.read_text() if path.exists() else ""

    def wait(self, key: str, value: str, limit_s: float = 60) -> None:
        """Until a property of the service has this value."""
        end = time.monotonic() + limit_s
        while (found := self.show(key)) != value:
            assert time.monotonic() < end, f"{key} is {found}, not {value}\n{self.log[-3000:]}"
            time.sleep(0.1)


@contextmanager
def machine(stage: Path, executable: str, drop_in: str) -> Iterator[Machine]:
    """A systemd that starts the unit; what lies in ``stage / "home"`` is in ``/run/edge`` there."""
    (stage / "edge-tsad.service.d").mkdir()
    (stage / "edge-tsad.service.d" / "test.conf").write_text(DROP_IN + drop_in)
    unit = unit_text(executable=executable, config=str(HOME / "gateway.toml"))
    (stage / "edge-tsad.service").write_text(unit)
    (stage / "test.target").write_text(TARGET)
    for name, line in {
        "passwd": "edge-tsad:x:990:990::/:/bin/false",
        "group": "edge-tsad:x:990:",
    }.items():
        (stage / name).write_text(Path("/etc", name).read_text() + line + "\n")
    script = stage / "begin.sh"
    packages = next(path for path in site.getsitepackages() if path.startswith(sys.prefix))
    script.write_text(
        BEGIN.format(stage=stage, tree=TREE, python=sys.base_prefix, site=packages, systemd=SYSTEMD)
    )
    before = groups()
    with (stage / "systemd.log").open("wb") as said:
        outer = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount", "--cgroup", "--ipc", "--uts", "--kill-child",
             "bash", str(script)],
            stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        end = time.monotonic() + 20
        while not (found := children.read_text().split()):
            assert outer.poll() is None and time.monotonic() < end, "the namespace did not begin"
            time.sleep(0.05)
        inner = Machine(int(found[0]))
        while "test.target" not in inner.run("systemctl", "list-units", "--all", "test.target"):
            assert outer.poll() is None and time.monotonic() < end, (
                stage / "systemd.log"
            ).read_text()
            time.sleep(0.1)
        yield inner
    finally:
        outer.kill()
        outer.wait()
        remove(groups() - before)


def groups() -> set[Path]:
    """The control groups of this machine."""
    return {Path(folder) for folder, _, _ in os.walk(CGROUPS)}


def remove(left: set[Path]) -> None:
    """Delete the control groups that systemd has left behind."""
    for folder in sorted(left, reverse=True):
        if {"system.slice", "init.scope"} & set(folder.parts):
            try:
                folder.rmdir()
            except OSError:
                time.sleep(0.2)  # its last process is only just gone
                folder.rmdir()
