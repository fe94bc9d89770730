#!/usr/bin/env python3
"""Builds the emulated gateways: ``scripts/arm/build.py [NAME …]`` (all where none is named)."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from emulation import cache_folder, emulated
from systems import SYSTEMS

from edge_tsad.errors import EdgeTsadError

MEGABYTE = 1e6


def size_mb(folder: Path) -> float:
    """Size of all files under ``folder`` in megabytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / MEGABYTE


def main() -> int:
    """Build what is named on the command line; 2 if something could not be built."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(SYSTEMS)}")
    names = parser.parse_args().name or list(SYSTEMS)
    print(f"Cache: {cache_folder()}")
    for name in names:
        started = time.monotonic()
        try:
            system = emulated(name, say=lambda text: print(f"  {text}", flush=True))
        except EdgeTsadError as error:
            print(f"build: {error}", file=sys.stderr)
            return 2
        seconds = time.monotonic() - started
        size = sum(map(size_mb, (system.root, *system.sites.values())))
        runtimes = ", ".join(system.runtimes)
        print(f"{name}: Python {system.system.python}, {runtimes}; {size:.0f} MB, {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
