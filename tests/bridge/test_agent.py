"""The agent's lines and commands, without ssh."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bridge.releases import KEY, TRUSTED, HandClock, bring, device, prepare, release, serves, tries
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_tsad.errors import BundleError, SignatureError, TransportError
from edge_tsad.keys import SigningKey
from edge_tsad.signing import KeySet, sign_keys
from firmware_bridge import agent as module
from firmware_bridge.agent import Agent, main
from firmware_bridge.protocol import REQUESTS, pack_bytes, pack_line, unpack_reply
from firmware_bridge.report import StatusReport


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return prepare(tmp_path / "gateway")


@pytest.fixture
def agent(root: Path) -> Agent:
    return Agent(device(root))


def ask(agent: Agent, name: str, **fields: Any) -> dict[str, Any]:
    source, sink = io.BytesIO(pack_line({"request": name, **fields})), io.BytesIO()
    agent.serve(source, sink, {})
    return unpack_reply(sink.getvalue(), "gw")


def test_a_bundle_by_lines(agent: Agent, root: Path) -> None:
    made = release(1)
    assert ask(agent, "offset", transfer=made.transfer, size=len(made.data)) == {"offset": 0}
    half = len(made.data) // 2
    for start, part in ((0, made.data[:half]), (half, made.data[half:])):
        data = pack_bytes(part)
        reply = ask(agent, "receive", transfer=made.transfer, offset=start, data=data)
        assert reply == {"offset": start + len(part)}
    status = StatusReport.read(ask(agent, "install", transfer=made.transfer), "gw")
    assert status.active
    assert status.active.digest == serves(root)
    assert (status.phase, status.problem, status.trial_remaining_s) == ("committed", "", None)


def test_errors_keep_their_class_and_sentence(agent: Agent) -> None:
    made = release(1, key=None)
    ask(agent, "offset", transfer=made.transfer, size=len(made.data))
    ask(agent, "receive", transfer=made.transfer, offset=0, data=pack_bytes(made.data))
    with pytest.raises(SignatureError, match="gw: the bundle: is not signed"):
        ask(agent, "install", transfer=made.transfer)
    with pytest.raises(BundleError, match="gw: no bundle is on trial"):
        ask(agent, "confirm")
    with pytest.raises(BundleError, match="request: is none of offset, receive"):
        ask(agent, "reboot")
    with pytest.raises(BundleError, match=r"install\.force: is not a known key"):
        ask(agent, "install", transfer=made.transfer, force=True)
    with pytest.raises(BundleError, match="trial_s"):
        ask(agent, "install", transfer=made.transfer, trial_s=1e9)
    with pytest.raises(BundleError, match="data: is no base64"):
        ask(agent, "receive", transfer=made.transfer, offset=0, data="ä")


class CutLine(io.BytesIO):
    """An output whose reader has gone."""

    def write(self, data: object) -> int:
        raise BrokenPipeError


def test_an_answer_that_is_lost_may_be_asked_for_again(agent: Agent, root: Path) -> None:
    bring(agent.device, release(1))
    made = release(2)
    ask(agent, "offset", transfer=made.transfer, size=len(made.data))
    ask(agent, "receive", transfer=made.transfer, offset=0, data=pack_bytes(made.data))
    for name, phase in (("install", "trial"), ("confirm", "committed")):
        given = {"transfer": made.transfer} if name == "install" else {"digest": made.digest}
        with pytest.raises(BrokenPipeError):
            agent.serve(io.BytesIO(pack_line({"request": name, **given})), CutLine(), {})
        assert (tries(root) or serves(root)) == made.digest
        assert ask(agent, name, **given)["phase"] == phase
    events = [entry.event for entry in agent.device.look()[0].history]
    assert (events.count("trial"), events.count("committed")) == (1, 2)


def test_keys_are_changed_by_a_key_that_is_held(agent: Agent, root: Path) -> None:
    new = SigningKey.new()
    names = (KEY.public("release"), new.public("new"))
    by_new = sign_keys(KeySet(2, names), new)
    with pytest.raises(SignatureError, match="by the keys held here"):
        ask(agent, "trust", document=pack_bytes(by_new))
    assert (root / "trusted.json").read_bytes() == TRUSTED
    by_both = sign_keys(KeySet(2, names[1:]), KEY, new)
    assert ask(agent, "trust", document=pack_bytes(by_both))["version"] == 2
    assert ask(agent, "trust", document=pack_bytes(by_both))["version"] == 2
    with pytest.raises(SignatureError, match="by the keys held here"):
        ask(agent, "trust", document=pack_bytes(TRUSTED))
    with pytest.raises(SignatureError, match="by no trusted key"):
        bring(agent.device, release(1))
    bring(agent.device, release(1, key=new))
    (root / "trusted.json").unlink()
    with pytest.raises(SignatureError, match="trusts no keys yet"):
        ask(agent, "trust", document=pack_bytes(by_both))


def test_a_line_that_is_none_is_answered_and_the_next_is_read(agent: Agent) -> None:
    sink = io.BytesIO()
    agent.serve(io.BytesIO(b'{"request":\n[]\n\xff\n{"request":"status"}\n{"req'), sink, {})
    replies = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert ["ok" in reply for reply in replies] == [False, False, False, True, False]
    assert "cut short or too long" in replies[-1]["error"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from([*REQUESTS, "", "__class__"]),
    fields=st.dictionaries(
        st.sampled_from(
            ["transfer", "size", "offset", "data", "to", "limit", "digest", "document", "x"]
        ),
        JSON,
    ),
)
def test_no_request_breaks_the_agent(agent: Agent, name: str, fields: dict[str, Any]) -> None:
    reply = agent.answer({"request": name, **fields})
    assert set(reply) in ({"ok"}, {"error", "kind"})


@pytest.mark.parametrize(
    "line",
    [b"", b"hello\n", b"[]\n", b'{"ok": 1}\n', b'{"error": "x", "kind": "SystemExit"}\n', b"{}\n"],
)
def test_a_gateway_that_talks_nonsense_is_an_error_of_the_line(line: bytes) -> None:
    with pytest.raises(TransportError, match=r"^gw: "):
        unpack_reply(line, "gw")
    with pytest.raises(TransportError, match=r"^gw"):
        StatusReport.read({"version": 1}, "gw")


def test_a_sentence_cannot_command_the_terminal() -> None:
    line = json.dumps({"error": "\x1b[2Jgone\r\n", "kind": "BundleError"}).encode()
    with pytest.raises(BundleError) as raised:
        unpack_reply(line, "gw")
    assert str(raised.value).isprintable()


def test_commands_for_a_shell(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(device(root), release(1))
    words = ["--root", str(root)]
    assert main([*words, "status"]) == 0
    assert json.loads(capsys.readouterr().out)["active"]["version"] == "1.1"
    assert main([*words, "history", "--limit", "1"]) == 0
    assert len(json.loads(capsys.readouterr().out)["entries"]) == 1
    assert main([*words, "rollback", "--to", "9"]) == 2
    assert "'9' is none of the bundles" in capsys.readouterr().err
    made = release(2)
    size = str(len(made.data))
    assert main([*words, "offset", "--transfer", made.transfer, "--size", size]) == 0
    capsys.readouterr()
    line = pack_line({"offset": 0, "data": pack_bytes(made.data)})
    monkeypatch.setattr(module.sys, "stdin", io.TextIOWrapper(io.BytesIO(line)))
    assert main([*words, "receive", "--transfer", made.transfer]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": {"offset": len(made.data)}}
    monkeypatch.setattr("edge_tsad.runtime.apart.LIMIT_S", 0.001)
    assert main([*words, "install", "--transfer", made.transfer]) == 2
    assert "self-test did not end within" in capsys.readouterr().err


def test_the_agent_needs_nothing_of_the_workstation() -> None:
    code = "import sys, firmware_bridge.agent; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert not imported & {"torch", "onnx", "export", "scipy", "pandas", "click", "rich"}


def test_the_service_ends_a_late_trial_and_says_so(root: Path) -> None:
    clock = HandClock()
    bring(device(root, clock), release(1))
    bring(device(root, clock), release(2), trial_s=1)
    # This machine's boot is another than the hand clock's: the trial is over.
    command = [sys.executable, "-m", "firmware_bridge.agent", "--root", str(root), "scan"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "tiny-1.2: rolled back: the gateway was restarted" in done.stderr
    assert serves(root) == release(1).digest


def test_watching_goes_on_after_an_error(root: Path) -> None:
    bring(device(root), release(1))
    (root / "agent.toml").write_text("scan_s = 0.1\nwhat = 1\n")
    command = [sys.executable, "-m", "firmware_bridge.agent", "--root", str(root), "watch"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert "what: is not a known key" in process.stderr.readline()
        process.terminate()
        assert process.wait(30) == 0
