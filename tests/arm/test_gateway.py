"""A gateway of another processor, from the first flash over ssh to the alert at the broker."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bridge.conftest import SSHD, Sshd
from bridge.releases import release, serves
from conftest import Mosquitto
from emulation import Emulated

pytestmark = pytest.mark.arm

START = 1_800_000_000


def user(sshd: Sshd, *words: object) -> str:
    """What a user on the workstation sees."""
    command = [sys.executable, "-m", "edge_tsad", *map(str, words), "--ssh-config", sshd.config]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["bookworm-aarch64", "trixie-aarch64"])
def test_flash_self_test_run_alert(
    name: str,
    system: Callable[[str, str], Emulated],
    mosquitto: Mosquitto,
    report: list[str],
    tmp_path: Path,
) -> None:
    if SSHD is None or shutil.which("ssh") is None:
        pytest.fail("sshd is missing (apt install openssh-server)")
    machine = system(name, "onnxruntime")
    python = machine.launcher(tmp_path / "python", "onnxruntime")
    sshd = Sshd(tmp_path, str(python))
    root = sshd.roots["gw-1"]
    sshd.start()
    try:
        bundle = release(1, padding=200_000).write(tmp_path / "tiny-1.1.tsad")
        report.append(f"{name}$ edge-tsad flash tiny-1.1.tsad gw-1")
        report += user(sshd, "flash", bundle, "gw-1").splitlines()
        assert serves(root) == release(1, padding=200_000).digest
        history = user(sshd, "history", "gw-1")
        report += [f"{name}$ edge-tsad history gw-1", *history.splitlines()]
        assert "4 golden windows of model.onnx passed on onnxruntime" in history
    finally:
        sshd.stop()
    values = [9.0 if 100 <= i < 105 else 0.5 for i in range(200)]
    lines = [f"{START + i},{value},0" for i, value in enumerate(values)]
    (tmp_path / "x.csv").write_text("\n".join(["time,flow,pressure", *lines, ""]))
    config = tmp_path / "gateway.toml"
    config.write_text(
        f'site = "plant"\ndevice = "gw"\ndata_dir = "data"\n[broker]\nurl = "{mosquitto.url}"\n'
        f'[[streams]]\nname = "pump"\nbundle = "{root}/active.tsad"\n'
        'source = { type = "csv", path = "x.csv", speed = "max" }\n'
    )
    listen = ["mosquitto_sub", "-p", str(mosquitto.port), "-t", "edge-tsad/plant/gw/alert/#"]
    with subprocess.Popen(
        [*listen, "-q", "1", "-C", "2", "-W", "120"], stdout=subprocess.PIPE, text=True
    ) as listener:
        done = subprocess.run(
            [python, "-m", "edge_tsad", "run", "-v", config],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said, _ = listener.communicate(timeout=150)
    alerts = [json.loads(line) for line in said.splitlines()]
    assert [alert["type"] for alert in alerts] == ["new", "end"]
    assert alerts[0]["onset_index"] == START + 100
    assert alerts[0]["digest"] == release(1, padding=200_000).digest
    report += [f"{name}$ edge-tsad run -v gateway.toml", *done.stderr.splitlines()]
    report += [f"alert: {alert['reason']}" for alert in alerts]
