"""What training leaves: a detector with all that export needs, in one file without pickles."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError

from edge_tsad.detectors.base import Detector
from edge_tsad.errors import BundleError, ConfigError
from edge_tsad.files import read_limited, write_atomically
from edge_tsad.registry import DETECTORS
from edge_tsad.runtime.threshold import Tail
from edge_tsad.training.series import Segment
from edge_tsad.types import Channel, FloatArray, PolicySettings, Timing

__all__ = ["TrainedModel"]

KEY = "edge-tsad"
FORMAT = "model 3"
LARGEST_FILE = 1 << 30
WEIGHTS, BLOCKS = "detector.", "calibration."
WINDOW, OBSERVED = "validation.window", "validation.observed"
HELD_OUT, HELD_OUT_OBSERVED = "held_out.values", "held_out.observed"

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A fitted detector, its channels and policy, and how its scores are distributed.

    ``calibration``: cross-fitted scores of the history, f32[n] a block, NaN where withheld;
    ``tail`` was fitted to them. ``validation``: normal windows spread over the history, those with
    each channel's extremes among them, and where they are observed, f32[n, T, C] each.
    ``held_out``: a stretch of normal operation that the detector was not fitted to (the fact
    ``held_out_unseen`` says where that could not be), for trying exported files. ``facts``: JSON
    values about the training, to be shown to people.
    """

    detector: Detector
    channels: tuple[Channel, ...]
    policy: PolicySettings
    tail: Tail
    calibration: list[FloatArray]
    validation: tuple[FloatArray, FloatArray]
    held_out: Segment
    facts: dict[str, Any]

    @property
    def timing(self) -> Timing:
        """That of the detector."""
        return self.detector.timing

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with JSON metadata, whole or not at all.

        Raises:
            BundleError: it cannot be written.
        """
        arrays: Arrays = {
            WEIGHTS + name: np.ascontiguousarray(tensor.numpy())
            for name, tensor in self.detector.state_dict().items()
        }
        arrays |= {f"{BLOCKS}{i}": block for i, block in enumerate(self.calibration)}
        arrays |= {WINDOW: self.validation[0], OBSERVED: self.validation[1]}
        arrays |= {
            HELD_OUT: np.ascontiguousarray(self.held_out.values),
            HELD_OUT_OBSERVED: np.ascontiguousarray(self.held_out.observed),
        }
        described = json.dumps(
            {
                "detector": self.detector.name,
                "settings": self.detector.settings(),
                "channels": [dataclasses.asdict(channel) for channel in self.channels],
                "policy": dataclasses.asdict(self.policy),
                "tail": self.tail.to_json(),
                "facts": self.facts,
            },
            allow_nan=False,
            sort_keys=True,
        )
        header = {"format": FORMAT, "model": described, "sha256": _digest(arrays, described)}
        # One key, because safetensors writes several in no fixed order.
        data = safetensors.numpy.save(arrays, {KEY: json.dumps(header)})
        write_atomically(Path(path), data, BundleError)

    @classmethod
    def load(cls, path: str | Path) -> TrainedModel:
        """The model in ``path``.

        Raises:
            BundleError: the file is missing, damaged, or no model of this version.
        """
        path = Path(path)
        data = read_limited(path, LARGEST_FILE, BundleError)
        try:
            arrays: Arrays = safetensors.numpy.load(data)
            header = _header(data)
            described = header["model"]
            if header["format"] != FORMAT:
                raise ValueError("it was written by another version")
            if header["sha256"] != _digest(arrays, described):
                raise ValueError("its content does not match its checksum")
            return cls._from_parts(arrays, json.loads(described))
        except ConfigError as error:
            raise BundleError(
                f"{path}: is a model that this version cannot use: {error}"
            ) from error
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BundleError(
                f"{path}: is damaged or no model file ({reason}); train it again or copy it anew"
            ) from error

    @classmethod
    def _from_parts(cls, arrays: Arrays, described: dict[str, Any]) -> TrainedModel:
        detector: Detector = DETECTORS[described["detector"]].from_settings(described["settings"])
        weights = {
            name.removeprefix(WEIGHTS): torch.from_numpy(array)
            for name, array in arrays.items()
            if name.startswith(WEIGHTS)
        }
        detector.load_state_dict(weights)
        blocks = sum(name.startswith(BLOCKS) for name in arrays)
        return cls(
            detector.eval(),
            tuple(Channel(**channel) for channel in described["channels"]),
            PolicySettings(**described["policy"]),
            Tail.from_json(described["tail"]),
            [arrays[f"{BLOCKS}{i}"] for i in range(blocks)],
            (arrays[WINDOW], arrays[OBSERVED]),
            Segment(arrays[HELD_OUT], arrays[HELD_OUT_OBSERVED]),
            described["facts"],
        )


def _digest(arrays: Arrays, described: str) -> str:
    """SHA-256 of everything in the file but itself: safetensors has no checksum of its own."""
    digest = hashlib.sha256(described.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _header(data: bytes) -> dict[str, str]:
    """Our part of the file's header, whose length and form safetensors has checked before."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][KEY])
    if not isinstance(header, dict):
        raise ValueError("it has no description")
    return header
