"""The end of a training: what the best weights are coded by, and how long it takes to fit and measure it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .. import weights
from ..errors import VqcodecWarning
from ..models.base import Model
from . import validation
from .plan import Plan
from .validation.measures import Validation


def completed(plan: Plan, data: Sequence[np.ndarray], device: str) -> Model:
    """Return the best weights of a run with tables fitted to training data."""
    model = weights.load(plan.folder / "best.safetensors", device)
    if plan.stage == "prior":
        return model
    model = model.fit_tables(validation.regions(data, model), plan.settings.seed)
    # Bitstreams that are measured name the model that will be saved.
    changed = weights.fingerprint(weights.exported(model), model.decoding, model.card.config)
    return model.equipped(replace(model.card, fingerprint=changed))


def seconds(
    plan: Plan,
    measures: Validation,
    data: Sequence[np.ndarray],
    held_out: Sequence[np.ndarray],
    device: str,
) -> float:
    """Estimate how long finishing a run will take, from what it takes with one file.

    Args:
        plan: of the run, whose folder has the best weights so far.
        measures: its validation.
        data: training files.
        held_out: validation files.
        device: of the networks.
    """
    started = time.monotonic()
    model = completed(plan, data[:1], device)
    fitted = time.monotonic()
    with warnings.catch_warnings():  # what one file tells of the model is not meant to be read
        warnings.simplefilter("ignore", VqcodecWarning)
        measures.measure(model, held_out[:1])
    measuring = (time.monotonic() - fitted) * len(measures.measured(model, held_out))
    return (fitted - started) * len(data) + measuring
