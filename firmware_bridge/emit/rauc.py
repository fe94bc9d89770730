"""RAUC: a bundle whose one image is put into the inbox by an install hook."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from edge_tsad.errors import TransportError
from firmware_bridge.emit.base import Artefact

__all__ = ["emit_rauc"]

LIMIT_S = 120

MANIFEST = """\
[update]
compatible={compatible}
version={version}

[bundle]
format=plain

[hooks]
filename=hook.sh

[image.edge-tsad]
filename={filename}
hooks=install
"""
HOOK = """\
#!/bin/sh
# The agent of edge-tsad takes the file from here, verifies it and tries it.
set -eu
[ "$1" = slot-install ] || exit 0
inbox='{inbox}'
part="$inbox/.{filename}.part"
cp "$RAUC_IMAGE_NAME" "$part"
chmod 644 "$part"
sync "$part"
mv "$part" "$inbox/{filename}"
"""


def emit_rauc(artefact: Artefact) -> bytes:
    """The bundle, made and signed by ``rauc bundle``.

    Raises:
        TransportError: rauc is not installed here, or refused; its last words are given.
        SignatureError: no certificate and key were given.
    """
    signer = artefact.require_signer("RAUC")
    rauc = shutil.which("rauc")
    if rauc is None:
        raise TransportError("rauc is not installed here; install the package rauc")
    fields = {
        "compatible": artefact.compatible,
        "version": artefact.version,
        "filename": artefact.filename,
        "inbox": artefact.inbox,
    }
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "content", Path(name) / "out.raucb"
        folder.mkdir()
        (folder / artefact.filename).write_bytes(artefact.data)
        (folder / "manifest.raucm").write_text(MANIFEST.format(**fields))
        (folder / "hook.sh").write_text(HOOK.format(**fields))
        (folder / "hook.sh").chmod(0o755)
        keys = [f"--cert={signer.certificate}", f"--key={signer.key}"]
        try:
            done = subprocess.run(
                [rauc, "bundle", *keys, str(folder), str(out)],
                capture_output=True, text=True, timeout=LIMIT_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as e:
            raise TransportError(f"rauc could not be run: {e}") from e
        if done.returncode or not out.exists():
            last = done.stderr.strip().rpartition("\n")[2]
            raise TransportError(f"rauc refused: {last or 'it gave no reason'}")
        return out.read_bytes()
