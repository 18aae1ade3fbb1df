"""What a training shows on the way and adds at its end: validation, pictures, tables, measured rates.

The module of a kind of model has `validate`, `show`, `step_figures`, `complete` and `SHOWN`.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

from ...models import PriorFit
from ...models.variable_rate import ScalarCodec
from ...models.vqvae import VQVAE, WaveNetVQVAE
from . import audio as sounds
from . import autoregressive, priors, rates
from . import image as pictures


def of(model: VQVAE | PriorFit) -> ModuleType:
    """The module that finishes a model."""
    if isinstance(model, PriorFit):
        return priors
    if isinstance(model, ScalarCodec):
        return rates
    if isinstance(model, WaveNetVQVAE):
        return autoregressive
    return {"image": pictures, "audio": sounds}[model.medium]


def plot_losses(folder: Path, shown: tuple[str, str]) -> None:
    """Draw metrics.jsonl as loss-curve.png, where matplotlib (the extra `plots`) is installed.

    Args:
        folder: of the run.
        shown: name of a figure in the events, and its label.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    figure = Figure(figsize=(8, 6), layout="constrained")
    quality, use = figure.subplots(2, 1, sharex=True)
    for event, label in (("step", "training crops"), ("validation", "validation, averaged weights")):
        points = [e for e in events if e["event"] == event]
        quality.plot([e["step"] for e in points], [e[shown[0]] for e in points], label=label)
        if points and "perplexity" in points[0]:
            spread = [e["perplexity"] for e in points]
            use.plot([e["step"] for e in points], spread, label=f"perplexity, {label}")
    quality.set_ylabel(shown[1])
    use.set_ylabel("codes")
    use.set_xlabel("step")
    quality.legend()
    if use.lines:
        use.legend()
    figure.savefig(folder / "loss-curve.png", dpi=100)
