"""The gateway's end: ``python -m firmware_bridge.agent [--root FOLDER] COMMAND``.

``serve`` answers requests on its standard input, one JSON line each, which is what ``edge-tsad``
speaks with it over SSH; the other commands are single requests for a shell. ``watch`` ends trials
that nobody confirmed and looks into the inboxes; it runs as a service. Exit status 0, or 2 with one
sentence on standard error.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from edge_tsad import __version__
from edge_tsad.decode import Json, decode, encode
from edge_tsad.errors import BundleError, EdgeTsadError
from firmware_bridge.device import Device
from firmware_bridge.harvest import Harvest
from firmware_bridge.inbox import Inbox
from firmware_bridge.protocol import (
    LINE_BYTES,
    PROTOCOL,
    REQUESTS,
    Alerts,
    Check,
    Confirm,
    Files,
    History,
    Install,
    Offset,
    Read,
    Receive,
    Rollback,
    Status,
    Trust,
    error_reply,
    pack_bytes,
    pack_line,
    read_line,
    unpack_bytes,
)
from firmware_bridge.report import HistoryReport, StatusReport

__all__ = ["DEFAULT_ROOT", "Agent", "main"]

NUMBERS = {"size": int, "limit": int, "offset": int, "after": int, "trial_s": float}
DEFAULT_ROOT = "/var/lib/edge-tsad-agent"


class Agent:
    """Answers requests about one device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._answers: dict[type, Callable[[Any], Json]] = {
            Offset: lambda r: {"offset": device.offset(r.transfer, r.size)},
            Receive: self._receive,
            Check: self._check,
            Trust: self._trust,
            Install: lambda r: self._after(device.install, r.transfer, r.trial_s),
            Confirm: lambda r: self._after(device.confirm, r.digest),
            Rollback: lambda r: self._after(device.rollback, r.to),
            Status: lambda _: self.status(),
            History: self._history,
            Files: lambda _: {"files": self._harvest.files()},
            Read: lambda r: {"data": pack_bytes(self._harvest.read(r.path, r.offset))},
            Alerts: lambda r: {"alerts": self._harvest.alerts(r.after)},
        }

    def answer(self, table: dict[str, Any]) -> Json:
        """The reply to a request; never raises for what the other side did."""
        try:
            name = table.pop("request", None)
            if name not in REQUESTS:
                raise BundleError(f"request: is none of {', '.join(REQUESTS)}")
            request: object = decode(REQUESTS[name], table, name, BundleError)
            return {"ok": self._answers[type(request)](request)}
        except EdgeTsadError as e:
            return error_reply(e)

    def serve(self, source: IO[bytes], sink: IO[bytes], defaults: dict[str, Any]) -> None:
        """Answer lines until there are no more; ``defaults`` are added to each."""
        while line := source.readline(LINE_BYTES):
            try:
                if not line.endswith(b"\n"):
                    raise BundleError("the request is cut short or too long")
                reply = self.answer({**defaults, **read_line(line, "the request")})
            except BundleError as e:
                reply = error_reply(e)
            sink.write(pack_line(reply))
            sink.flush()

    def status(self) -> Json:
        """Which bundle serves, as found in the slot, and what the agent is about."""
        state, slot, problem = self.device.look()
        now = self.device.clock.now()
        verdict = self.device.verdict(state)
        report = StatusReport(
            version=__version__,
            phase=state.phase,
            active=state.release(slot),
            candidate=state.release(state.trying),
            trial_remaining_s=state.trial.left_s(now) if state.trial else None,
            so_far="; ".join(part for part in (verdict.finding, verdict.missing) if part),
            previous=tuple(r for r in state.committed if r.digest != slot and state.allows(r)),
            floor=state.floor,
            last=state.history[-1] if state.history else None,
            problem=problem,
        )
        return encode(report)

    @property
    def _harvest(self) -> Harvest:
        return Harvest(Path(self.device.folder.settings().data))

    def _after(self, act: Callable[..., object], *arguments: object) -> Json:
        """Do something; the status then."""
        act(*arguments)
        return self.status()

    def _receive(self, request: Receive) -> Json:
        data = unpack_bytes(request.data, "data")
        return {"offset": self.device.receive(request.transfer, request.offset, data)}

    def _check(self, request: Check) -> Json:
        signature = None
        if request.signature is not None:
            signature = unpack_bytes(request.signature, "signature")
        manifest = unpack_bytes(request.manifest, "manifest")
        accepted = self.device.check(manifest, signature, request.size)
        return {"accepted": f"{accepted.name}-{accepted.version}"}

    def _trust(self, request: Trust) -> Json:
        keys = self.device.trust(unpack_bytes(request.document, "document"))
        return {"version": keys.version, "keys": [key.id for key in keys.keys]}

    def _history(self, request: History) -> Json:
        state, _, _ = self.device.look()
        return encode(HistoryReport(state.history[-max(request.limit, 1) :]))


def watch(device: Device, once: bool) -> None:
    """End trials whose time is over and take what lies in the inboxes, again and again."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    inbox = Inbox(device)
    said = ""
    while not stop.is_set():
        try:
            before = device.folder.load().history
            device.recover()
            inbox.scan()
            for entry in device.folder.load().history:
                if not before or entry.number > before[-1].number:
                    say(f"{entry.label or entry.transfer[:12]}: {entry.event}: {entry.reason}")
            scan_s, said = device.folder.settings().scan_s, ""
        except EdgeTsadError as e:
            if str(e) != said:
                say(str(e))
            scan_s, said = 5.0, str(e)
        if once:
            return
        stop.wait(scan_s)


def say(text: str) -> None:
    """A line for the journal."""
    sys.stderr.write(f"edge-tsad-agent: {text}\n")
    sys.stderr.flush()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m firmware_bridge.agent",
        description="The gateway's end of `edge-tsad flash`.",
        epilog="example: python -m firmware_bridge.agent --root /var/lib/edge-tsad-agent status",
    )
    top.add_argument("--root", type=Path, default=Path(DEFAULT_ROOT), help="folder of the agent")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="answer JSON lines (what edge-tsad speaks with over SSH)")
    for name in ("watch", "scan"):
        text = "end late trials and look into the inboxes" + (", once" if name == "scan" else "")
        commands.add_parser(name, help=text)
    for name, kind in REQUESTS.items():
        if kind in (Check, Trust):
            continue  # documents do not fit on a command line
        command = commands.add_parser(name, help=str(kind.__doc__).partition("\n")[0])
        for field in dataclasses.fields(kind):
            if kind is Receive and field.name != "transfer":
                continue  # offset and data come in lines
            option = f"--{field.name.replace('_', '-')}"
            number = NUMBERS.get(field.name, str)
            needed = field.default is dataclasses.MISSING
            command.add_argument(option, type=number, required=needed, default=argparse.SUPPRESS)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    given = vars(parser().parse_args(arguments))
    device, command = Device(given.pop("root")), given.pop("command")
    agent = Agent(device)
    try:
        if command in ("watch", "scan"):
            watch(device, once=command == "scan")
        elif command == "serve":
            sys.stdout.buffer.write(pack_line({"agent": PROTOCOL, "version": __version__}))
            sys.stdout.buffer.flush()
            agent.serve(sys.stdin.buffer, sys.stdout.buffer, {})
        elif command == "receive":
            agent.serve(sys.stdin.buffer, sys.stdout.buffer, {"request": command, **given})
        else:
            reply = agent.answer({"request": command, **given})
            if "error" in reply:
                say(str(reply["error"]))
                return 2
            sys.stdout.buffer.write(pack_line(reply["ok"]))
    except BrokenPipeError:
        return 1  # the line was cut; whatever was begun was ended, or is found by recovery
    except EdgeTsadError as e:
        say(str(e))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
