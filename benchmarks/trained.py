"""CoAD models that the scripts here share: trained once, found again by their history.

A folder of models belongs to one state of the code; take another one after a change.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from edge_tsad.training.fit import train
from edge_tsad.training.model import TrainedModel
from edge_tsad.training.series import Series

__all__ = ["SEED", "model_of"]

SEED = 0


def model_of(history: Series, folder: Path) -> TrainedModel:
    """The model of a history, trained now if it is not in ``folder``."""
    path = folder / f"{hashlib.sha256(history.values.tobytes()).hexdigest()[:16]}.safetensors"
    if path.is_file():
        return TrainedModel.load(path)
    model = train(history, "coad", seed=SEED)
    folder.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model
