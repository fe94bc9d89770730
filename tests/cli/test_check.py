"""``edge-tsad check`` and ``doctor``: all mistakes at once, and what there is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import Mosquitto
from oracles import tiny_bundle

from edge_tsad.cli import doctor, main
from edge_tsad.registry import BACKENDS

GOOD = """
site = "plant"
device = "gw"
data_dir = "data"
budget = "2/7d"
[broker]
username = "press-gateway"
[[streams]]
name = "one"
bundle = "tiny.tsad"
record = true
source = { type = "csv", path = "x.csv" }
[[streams]]
name = "two"
bundle = "tiny.tsad"
source = { type = "csv", path = "x.csv" }
[[streams]]
name = "three"
bundle = "tiny.tsad"
budget = "1/24h"
source = { type = "csv", path = "x.csv" }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_bundle.make(tmp_path / "tiny.tsad")
    (tmp_path / "x.csv").write_text("time,flow,pressure\n")
    return tmp_path


def check(folder: Path, text: str, *options: str) -> tuple[int, str, list[str]]:
    (folder / "g.toml").write_text(text)
    result = CliRunner().invoke(main, ["check", "g.toml", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr.splitlines()


def test_a_good_file_shows_how_the_budget_is_split(folder: Path) -> None:
    code, out, err = check(folder, GOOD)
    assert (code, err) == (0, [])
    assert "2/7d, split over 2 streams" in out
    one, two, three = out.splitlines()[-3:]
    assert one.split()[0] == "one" and one.endswith("yes") and two.endswith("no")
    assert "tiny-1.0.0" in one and "onnxruntime" in one and "its part" in one
    assert "  1 in 7 days" in one and "1/24h" in three and "  7 in 7 days" in three
    assert not (folder / "data").exists(), "nothing is written"


def test_a_stream_without_a_bundle_is_shown_as_only_recorded(folder: Path) -> None:
    table = 'name = "x"\nstep_s = 1\nchannels = ["a"]\nsource.type = "stdin"\n'
    code, out, _ = check(folder, f'site = "s"\ndevice = "d"\n[[streams]]\n{table}')
    assert code == 0 and "by edge-tsad record" in out and "refused by edge-tsad run" in out


BAD = """
sight = "plant"
device = "a/b"
data_dir = "x.csv"
[broker]
url = "mqtt://10.0.0.1"
[outbox]
max_rows = "many"
max_mb = -1
[[streams]]
name = "one"
bundle = "no.tsad"
source = { type = "csv", path = "no.csv" }
[[streams]]
name = "two"
bundle = "tiny.tsad"
threads = 0
source = { type = "csv", path = "x.csv", speed = "slow", column = 3 }
[[streams]]
name = "three"
bundle = "tiny.tsad"
source = { type = "modbus" }
[[streams]]
name = "four"
bundle = "tiny.tsad"
budget = "often"
health.bounds = { level = [0, 1] }
source = { type = "csv", path = "x.csv" }
[[streams]]
name = "five"
step_s = 1
source.type = "stdin"
"""


def test_every_mistake_is_found_at_once_with_its_key_path(folder: Path) -> None:
    code, out, err = check(folder, BAD)
    assert (code, out) == (2, "")
    problems = [line.removeprefix("g.toml: ") for line in err]
    for start in (
        "sight: is not a known key; did you mean 'site'?",
        "site: is missing",
        "broker.url: 10.0.0.1 is not this machine",
        "outbox.max_rows: is 'many'; a whole number is needed",
        "streams[0]: ",
        "streams[0].source: ",
        "streams[1].source.speed: ",
        "streams[1].source.column: is not a known key",
        "streams[2].source.type: must be one of",
        "streams[3]: health.bounds: has no channel 'level'",
        "streams[4]: channels: the source stdin cannot name them",
    ):
        assert any(problem.startswith(start) for problem in problems), (start, problems)
    assert err[-1] == f"edge-tsad: g.toml has {len(err) - 1} problems"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (('name = "two"', 'name = "one"'), "streams[1].name: 'one' is already the name"),
        (('"1/24h"', '"often"'), "streams[2]: "),
        (('data_dir = "data"', 'data_dir = "x.csv"'), "data_dir: "),
        (('username = "press-gateway"', 'username = "u"\npassword_file = "no"'), "does not exist"),
        (("tiny.tsad", "x.csv"), "streams[0]: "),
        (('path = "x.csv"', 'path = "tiny.tsad"'), "streams[0]: "),
    ],
)
def test_what_only_trying_can_tell(folder: Path, change: tuple[str, str], sentence: str) -> None:
    code, _, err = check(folder, GOOD.replace(*change))
    assert code == 2 and any(sentence in line for line in err), err


def test_no_toml_is_one_sentence(folder: Path) -> None:
    code, _, err = check(folder, "site = ")
    assert code == 2 and len(err) == 1 and "is no TOML" in err[0]
    result = CliRunner().invoke(main, ["check", "nothing.toml"])
    assert result.exit_code == 2 and "does not exist" in result.stderr


def test_a_broker_with_the_printed_rights_grants_just_these(
    folder: Path, stopped_mosquitto: Mosquitto
) -> None:
    tool = shutil.which("mosquitto_passwd")
    assert tool, "mosquitto_passwd comes with mosquitto"
    acl = folder / "edge.acl"
    acl.write_text(check(folder, GOOD, "--acl")[1])
    users = ("press-gateway", "operator", "consumer")
    for i, user in enumerate(users):
        new = [] if i else ["-c"]
        subprocess.run([tool, *new, "-b", str(folder / "pw"), user, "secret"], check=True)
    for file in (acl, folder / "pw"):
        file.chmod(0o600)
    stopped_mosquitto.start(
        f"allow_anonymous false\nacl_file {acl}\npassword_file {folder / 'pw'}\n"
    )
    port = ["-p", str(stopped_mosquitto.port), "-q", "1", "-V", "5"]

    def arrives(sender: str, receiver: str, topic: str) -> bool:
        """Whether a retained message of one is seen by the other."""
        publish = [
            "mosquitto_pub",
            *port,
            "-u",
            sender,
            "-P",
            "secret",
            "-t",
            topic,
            "-r",
            "-m",
            "x",
        ]
        subprocess.run(publish, capture_output=True, check=False)
        subscribe = ["mosquitto_sub", *port, "-u", receiver, "-P", "secret", "-t", topic, "-C", "1"]
        got = subprocess.run([*subscribe, "-W", "1"], capture_output=True, check=False).stdout
        subprocess.run([*publish[:-2], "-n"], capture_output=True, check=False)
        return got == b"x\n"

    own = "edge-tsad/plant/gw"
    device, operator, consumer = users
    assert arrives(device, operator, f"{own}/status")
    assert arrives(device, consumer, f"{own}/alert/one/health")
    assert arrives(device, device, f"{own}/probe")
    assert arrives(operator, device, f"{own}/cmd/ack")
    assert arrives(operator, device, f"{own}/cmd/replay")
    assert not arrives(consumer, device, f"{own}/cmd/replay")
    assert not arrives(device, device, "homeassistant/device/x/config")
    assert not arrives(device, consumer, f"{own}/score/one")
    assert not arrives(consumer, device, f"{own}/cmd/ack")
    assert not arrives(operator, consumer, f"{own}/alert/one")
    assert not arrives(device, operator, "edge-tsad/plant/another/status")
    anonymous = subprocess.run(
        ["mosquitto_pub", *port, "-t", f"{own}/status", "-m", "x"], capture_output=True, check=False
    )
    assert anonymous.returncode


def test_what_the_configuration_switches_on_is_among_the_rights(folder: Path) -> None:
    tables = '[commands]\nallow = ["replay"]\n[home_assistant]\ndiscovery = true\nprefix = "ha"\n'
    text = GOOD.replace("[broker]", f"{tables}[broker]")
    rights = check(folder, text, "--acl")[1]
    device, _, consumer = rights.split("user ")[1:]
    assert "topic write ha/device/+/config\n" in device and "topic read ha/status\n" in device
    assert "topic write edge-tsad/plant/gw/cmd/replay\n" in consumer
    assert "topic read edge-tsad/plant/gw/response/replay\n" in consumer
    assert "cmd/#" not in consumer and "homeassistant" not in rights


def test_the_doctor_names_every_runtime_and_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    for name in (*BACKENDS, "python", "numpy", "psutil", "pyserial", "clock", "free space"):
        assert any(line.startswith(name) for line in result.stdout.splitlines()), name
    for backend in BACKENDS.values():
        monkeypatch.setattr(backend, "version", classmethod(lambda cls: None))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1 and "no inference runtime can be used" in result.stderr
    assert 'pip install "edge-tsad[litert]"' in result.stdout
    assert 'the source serial needs it; pip install "edge-tsad[serial]"' in result.stdout
