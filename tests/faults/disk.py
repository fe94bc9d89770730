"""A disk that loses its power: a recorded life of a folder, cut at any moment.

The life is recorded with strace: every call that changes the folder, with all its data. The model
is the strict one of POSIX: the bytes of a file are there only once the file was synced, its name
only once the folder was. What was not synced when the power went may have reached the disk all the
same, wholly, partly, or not at all.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["CALLS", "Call", "Disk", "calls"]

CALLS = (
    "openat,close,lseek,write,pwrite64,ftruncate,fallocate,fsync,fdatasync,rename,renameat,"
    "renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir"
)
SECTOR = 512
LINE = re.compile(r"^(\d+) +(.*)$")
WHOLE = re.compile(r"^(\w+)\((.*)\) += (-?\d+)(?:<[^>]*>)?(?: .*)?$", re.S)
HEX = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class Call(NamedTuple):
    """A system call that succeeded: its name, arguments as text, strings as bytes, and result."""

    name: str
    arguments: str
    strings: list[bytes]
    result: int


def calls(log: Path) -> Iterator[Call]:
    """The calls in a log of ``strace -f -xx``, in the order in which they were over.

    A send comes where it began: by its end the bytes may long have left.
    """
    begun: dict[str, str] = {}
    for line in log.read_text().splitlines():
        if (found := LINE.match(line)) is None:
            continue
        process, text = found.groups()
        if text.endswith("<unfinished ...>"):
            begun[process] = text.removesuffix("<unfinished ...>")
            if text.startswith("send"):
                yield parsed(text.partition("(")[0], text.partition("(")[2], 0)
            continue
        if text.startswith("<... "):
            text = begun.pop(process) + text.partition(" resumed>")[2]
            if text.startswith("send"):
                continue
        whole = WHOLE.match(text)
        if whole is not None and int(whole[3]) >= 0:
            yield parsed(whole[1], whole[2], int(whole[3]))


def parsed(name: str, arguments: str, result: int) -> Call:
    strings = [bytes.fromhex(text.replace("\\x", "")) for text in HEX.findall(arguments)]
    return Call(name, HEX.sub("", arguments), strings, result)


@dataclass
class File:
    """``content`` as the processes see it, ``durable`` as it is after a power cut."""

    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[tuple[int, bytes]] = field(default_factory=list)  # −1: cut to the length in it

    def write(self, offset: int, data: bytes) -> None:
        self.pending.append((offset, data))
        put(self.content, offset, data)

    def truncate(self, length: int) -> None:
        self.pending.append((-1, str(length).encode()))
        cut(self.content, length)

    def sync(self) -> None:
        self.durable = bytes(self.content)
        self.pending.clear()

    def after_cut(self, chance: random.Random | None) -> bytes:
        """``chance`` decides sector by sector what reached the disk; None: nothing did."""
        found = bytearray(self.durable)
        for offset, data in self.pending if chance else ():
            if offset < 0:
                if chance.random() < 0.5:
                    cut(found, int(data))
                continue
            for begin in range(0, len(data), SECTOR):
                if chance.random() < 0.5:
                    put(found, offset + begin, data[begin : begin + SECTOR])
        return bytes(found)


def put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def cut(content: bytearray, length: int) -> None:
    del content[length:]
    content.extend(bytes(length - len(content)))


@dataclass
class Folder:
    """Names as they are and as they would be after a power cut, and what changed between."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[dict[str, File | Folder]] = field(default_factory=list)

    def change(self) -> None:
        self.pending.append(dict(self.names))

    def sync(self) -> None:
        self.durable = dict(self.names)
        self.pending.clear()

    def after_cut(self, chance: random.Random | None) -> dict[str, File | Folder]:
        """Changes of names reach the disk in their order; ``chance`` decides how many did."""
        if chance is None or not self.pending:
            return self.durable
        return chance.choice([self.durable, *self.pending])


class Disk:
    """What is below the folder ``root``; all that is elsewhere is not looked at."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = Folder()
        self._open: dict[int, File | Folder] = {}
        self._where: dict[int, int] = {}

    def follow(self, call: Call) -> bool:
        """Take in a call; whether it changed something, or made it durable."""
        handler = getattr(self, f"_{call.name}", None)
        return bool(handler(call)) if handler else False

    def lay_out(self, target: Path, chance: random.Random | None) -> None:
        """Write what is left after a power cut into ``target``."""
        lay_out(self.top, target, chance)

    def _find(self, path: bytes) -> tuple[Folder | None, str]:
        """The folder in which a path lies, None if it is not on this disk; and its last name."""
        try:
            parts = Path(path.decode()).relative_to(self.root).parts
        except ValueError:
            return None, ""
        here: File | Folder | None = self.top
        for part in parts[:-1]:
            here = here.names.get(part) if isinstance(here, Folder) else None
        return (here if isinstance(here, Folder) and parts else None), (parts or ("",))[-1]

    def _openat(self, call: Call) -> bool:
        self._open.pop(call.result, None)
        folder, name = self._find(call.strings[0])
        if call.strings[0] == str(self.root).encode():
            self._open[call.result] = self.top
        if folder is None:
            return False
        made = name not in folder.names
        if made and "O_CREAT" not in call.arguments:
            return False  # was there before the recording
        if made:
            folder.names[name] = File()
            folder.change()
        found = folder.names[name]
        if "O_TRUNC" in call.arguments and isinstance(found, File):
            found.truncate(0)
        self._open[call.result], self._where[call.result] = found, 0
        return made

    def _close(self, call: Call) -> bool:
        self._open.pop(number(call), None)
        return False

    def _lseek(self, call: Call) -> bool:
        self._where[number(call)] = call.result
        return False

    def _write(self, call: Call) -> bool:
        file = self._open.get(number(call))
        if not isinstance(file, File):
            return False
        at = self._where[number(call)]
        file.write(at, call.strings[0][: call.result])
        self._where[number(call)] = at + call.result
        return True

    def _pwrite64(self, call: Call) -> bool:
        file = self._open.get(number(call))
        if isinstance(file, File):
            file.write(int(call.arguments.split(",")[-1]), call.strings[0][: call.result])
        return isinstance(file, File)

    def _ftruncate(self, call: Call) -> bool:
        file = self._open.get(number(call))
        if isinstance(file, File):
            file.truncate(int(call.arguments.split(",")[-1]))
        return isinstance(file, File)

    def _fsync(self, call: Call) -> bool:
        if (found := self._open.get(number(call))) is not None:
            found.sync()
        return found is not None

    _fdatasync = _fsync

    def _rename(self, call: Call) -> bool:
        (source, old), (target, new) = map(self._find, call.strings[:2])
        if source is None or target is None:
            assert source is target, f"{call}: moves across the border"
            return False
        target.names[new] = source.names.pop(old)
        source.change()
        if target is not source:
            target.change()
        return True

    _renameat = _renameat2 = _rename

    def _unlink(self, call: Call) -> bool:
        folder, name = self._find(call.strings[0])
        if folder is not None:
            del folder.names[name]
            folder.change()
        return folder is not None

    _unlinkat = _rmdir = _unlink

    def _mkdir(self, call: Call) -> bool:
        folder, name = self._find(call.strings[0])
        if folder is not None:
            folder.names[name] = Folder()
            folder.change()
        return folder is not None

    _mkdirat = _mkdir


def number(call: Call) -> int:
    """The file descriptor, which is the first argument."""
    return int(call.arguments.split(",")[0].split("<")[0])


def lay_out(folder: Folder, target: Path, chance: random.Random | None) -> None:
    target.mkdir(exist_ok=True)
    for name, found in folder.after_cut(chance).items():
        if isinstance(found, Folder):
            lay_out(found, target / name, chance)
        elif not name.endswith("-shm"):  # is built anew from the WAL by whoever opens it first
            (target / name).write_bytes(found.after_cut(chance))
