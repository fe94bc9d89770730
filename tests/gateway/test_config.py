"""The TOML file: read strictly, every mistake names its key path."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_tsad.broker import BrokerConfig
from edge_tsad.config import GatewayConfig, load_config, parse_config
from edge_tsad.errors import ConfigError

STREAM = """
[[streams]]
name = "press"
bundle = "press.tsad"
source = { type = "csv", path = "x.csv", speed = 10 }
"""
GOOD = f"""
site = "plant-1"
device = "gw.7"
budget = "2/7d"
data_dir = "data"
[broker]
url = "mqtts://broker.example:8884"
protocol = "3.1.1"
ca_file = "ca.pem"
username = "u"
password_file = "/secret"
[outbox]
max_rows = 10
[state]
interval_s = 5
{STREAM}
[[streams]]
name = "host"
bundle = "/abs/host.tsad"
source.type = "system"
source.interval_s = 0.5
budget = "1/24h"
sensitivity = 2.0
lateness_s = 1
backend = "litert"
"""
FOLDER = Path("/etc/edge")


def parse(text: str) -> GatewayConfig:
    return parse_config(text, FOLDER)


def test_a_good_file() -> None:
    config = parse(GOOD)
    assert (config.site, config.device, config.budget) == ("plant-1", "gw.7", "2/7d")
    press, host = config.streams
    assert press.bundle == "/etc/edge/press.tsad" and host.bundle == "/abs/host.tsad"
    assert press.source.options.path == "/etc/edge/x.csv"  # type: ignore[attr-defined]
    assert press.source.options.speed == 10.0  # type: ignore[attr-defined]
    assert host.source.options.interval_s == 0.5  # type: ignore[attr-defined]
    assert (host.sensitivity, host.lateness_s, host.backend) == (2.0, 1.0, "litert")
    broker = config.broker
    assert (broker.tls, broker.host, broker.port) == (True, "broker.example", 8884)
    assert broker.ca_file == "/etc/edge/ca.pem" and broker.password_file == "/secret"
    assert config.folder == Path("/etc/edge/data")
    assert config.outbox.max_rows == 10 and config.state.interval_s == 5.0


def test_the_data_folder_has_a_usual_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    config = parse('site = "s"\ndevice = "d"\n' + STREAM)
    assert config.folder == Path("/state/edge-tsad/s/d")


HEAD = 'site = "s"\ndevice = "d"\n'
TWO = HEAD + STREAM + STREAM.replace("press", "other")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (STREAM, "site: is missing"),
        (HEAD, "streams: is missing"),
        (HEAD + "streams = []", "streams: is empty"),
        (HEAD + "sight = 1" + STREAM, "sight: is not a known key; did you mean 'site'?"),
        ('site = "a/b"\ndevice = "d"' + STREAM, "site: 'a/b' is not 1 to 64 letters"),
        ('site = "s"\ndevice = "+"' + STREAM, "device: "),
        (HEAD + STREAM + STREAM, r"streams\[1\].name: 'press' is already the name of streams\[0\]"),
        (TWO + "chanels = 3", r"streams\[1\].chanels: is not a known key; did you mean 'channels'"),
        (TWO + "channels = 3", r"streams\[1\].channels: is 3; a list is needed"),
        (TWO + 'channels = ["a"]', r"streams\[1\].channels: comes from the bundle; leave it out"),
        (
            TWO.replace('bundle = "other.tsad"', ""),
            r"streams\[1\].bundle: is missing; a stream with",
        ),
        (
            TWO.replace('bundle = "other.tsad"', 'step_s = 1\nchannels = ["a", ""]'),
            r"streams\[1\].channels\[1\].name: is empty",
        ),
        (TWO + "health.no_data_s = -1", r"streams\[1\].health.no_data_s: -1.0 is negative"),
        (TWO + "health.bounds.a = [1, 1]", r"streams\[1\].health.bounds: of 'a', 1.0 is not below"),
        (
            TWO + "health.bounds.a = [1]",
            r"streams\[1\].health.bounds.a: has 1 entries instead of 2",
        ),
        (
            TWO + 'health.off = ["LATE"]',
            r"streams\[1\].health.off\[0\]: is 'LATE'; it must be one of",
        ),
        (HEAD + "history.max_mb = 0" + STREAM, "history.max_mb: 0.0 is less than 0.1"),
        (TWO.replace('"other.tsad"', "7"), r"streams\[1\].bundle: is 7; text is needed"),
        (
            HEAD + STREAM.replace('"csv"', '"modbus"'),
            r"streams\[0\].source.type: must be one of csv",
        ),
        (HEAD + STREAM.replace("speed = 10", "speed = -1"), r"streams\[0\].source.speed: -1"),
        (HEAD + STREAM.replace("speed = 10", 'speed = "fast"'), r"streams\[0\].source.speed: "),
        (HEAD + STREAM.replace("speed", "sped"), r"streams\[0\].source.sped: is not a known key"),
        (HEAD + STREAM.replace('path = "x.csv",', ""), r"streams\[0\].source.path: is missing"),
        (HEAD + STREAM + "sensitivity = 0", r"streams\[0\].sensitivity: 0.0 is not positive"),
        (HEAD + STREAM + 'backend = "tpu"', r"streams\[0\].backend: must be one of litert"),
        (HEAD + STREAM + "threads = true", r"streams\[0\].threads: "),
        (HEAD + STREAM + "lateness_s = nan", r"streams\[0\].lateness_s: "),
        (HEAD + '[broker]\nurl = "mqtt://10.0.0.1"' + STREAM, "broker.url: 10.0.0.1 is not this"),
        (HEAD + '[broker]\nurl = "http://localhost"' + STREAM, "broker.url: 'http://localhost' is"),
        (HEAD + '[broker]\nurl = "mqtt://u:p@localhost"' + STREAM, "broker.url: holds a user"),
        (HEAD + '[broker]\nurl = "mqtt://localhost:x"' + STREAM, "broker.url: "),
        (HEAD + '[broker]\nprotocol = "4"' + STREAM, "broker.protocol: is '4'; it must be one of"),
        (HEAD + '[broker]\nkey_file = "k"' + STREAM, "broker.key_file: needs certificate_file"),
        (HEAD + '[broker]\npassword_file = "k"' + STREAM, "broker.password_file: needs username"),
        (HEAD + "[outbox]\nmax_rows = 0" + STREAM, "outbox.max_rows: 0 is not positive"),
        (HEAD + "[state]\ninterval_s = -1" + STREAM, "state.interval_s: -1.0 is not positive"),
        ("site = ", "is no TOML"),
    ],
)
def test_a_mistake_names_its_key_path(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(text)


def test_a_stream_without_a_bundle_has_a_step_and_perhaps_channels() -> None:
    table = 'name = "x"\nstep_s = 0.1\nsource.type = "stdin"\n'
    (stream,) = parse(
        HEAD + f"[[streams]]\n{table}channels = ['a', {{name = 'b', unit = 'bar'}}]"
    ).streams
    assert stream.bundle == "" and stream.step_s == 0.1
    assert [(channel.name, channel.unit) for channel in stream.channels] == [
        ("a", ""),
        ("b", "bar"),
    ]


def test_a_broker_elsewhere_may_do_without_tls_if_the_file_says_so() -> None:
    assert BrokerConfig("mqtt://10.0.0.1", insecure=True).port == 1883
    assert BrokerConfig("mqtts://10.0.0.1").port == 8883
    assert BrokerConfig("mqtt://[::1]:7").host == "::1"


def test_the_password_is_the_first_line_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret word\r\nmore\n")
    file.chmod(0o600)
    assert BrokerConfig(username="u", password_file=str(file)).password() == "secret word"
    assert BrokerConfig().password() is None
    with pytest.raises(ConfigError, match="does not exist"):
        BrokerConfig(username="u", password_file=str(tmp_path / "no")).password()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    file.chmod(mode)
    with pytest.raises(ConfigError, match=r"^broker\.password_file: .*chmod 600 it$"):
        BrokerConfig(username="u", password_file=str(file)).password()


def test_a_secret_may_be_a_credential_of_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "$CREDENTIALS_DIRECTORY/broker.password"
    config = BrokerConfig(username="u", password_file=name).at(tmp_path / "elsewhere")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match="start it by systemd with LoadCredential="):
        config.password()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "broker.password").write_text("from systemd\n")
    (tmp_path / "broker.password").chmod(0o440)  # as systemd shows it
    assert config.password() == "from systemd"


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(file)
    file.write_text(HEAD)
    with pytest.raises(ConfigError, match=r"gateway\.toml: streams: is missing"):
        load_config(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="no UTF-8"):
        load_config(file)
    file.write_text(HEAD + STREAM)
    assert load_config(file).streams[0].bundle == str(tmp_path / "press.tsad")


@given(st.text(max_size=60))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)
