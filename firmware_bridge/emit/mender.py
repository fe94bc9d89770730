"""Mender: an artefact of format 3 for the update module ``single-file``, which Mender brings."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import tarfile
from collections.abc import Mapping

from firmware_bridge.emit.base import Artefact

__all__ = ["emit_mender"]

MODULE = "single-file"


def emit_mender(artefact: Artefact) -> bytes:
    """The artefact; it is not signed (``mender-artifact sign`` adds the fleet's signature)."""
    payload = {
        artefact.filename: artefact.data,
        "dest_dir": f"{artefact.inbox}\n".encode(),
        "filename": f"{artefact.filename}\n".encode(),
        "permissions": b"644\n",
    }
    version = b'{"format":"mender","version":3}'
    header = gzip.compress(tar(headers(artefact)), mtime=0)
    sums = {f"data/0000/{name}": data for name, data in payload.items()}
    sums |= {"header.tar.gz": header, "version": version}
    manifest = "".join(f"{hashlib.sha256(sums[n]).hexdigest()}  {n}\n" for n in sorted(sums))
    return tar(
        {
            "version": version,
            "manifest": manifest.encode(),
            "header.tar.gz": header,
            "data/0000.tar.gz": gzip.compress(tar(payload), mtime=0),
        }
    )


def headers(artefact: Artefact) -> dict[str, bytes]:
    """What the fleet's server reads."""
    name = f"data-partition.{artefact.name}"
    info = {
        "payloads": [{"type": MODULE}],
        "artifact_provides": {"artifact_name": artefact.label},
        "artifact_depends": {"device_type": [artefact.compatible]},
    }
    kind = {
        "type": MODULE,
        "artifact_provides": {f"{name}.version": artefact.version},
        "clears_artifact_provides": [f"{name}.*"],
    }
    return {
        "header-info": json.dumps(info).encode(),
        posixpath.join("headers", "0000", "type-info"): json.dumps(kind).encode(),
    }


def tar(members: Mapping[str, bytes]) -> bytes:
    """The members as a tar file, the same bytes for the same members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
