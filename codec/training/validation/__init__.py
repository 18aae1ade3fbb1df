"""What a training shows on the way and measures at its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ...files import atomically
from ...models.base import Figures
from .latents import Latents
from .measures import Likelihoods, Priors, Reconstructions, Validation, of, regions, use_figures
from .media import MEDIA

__all__ = [
    "MEDIA",
    "Latents",
    "Likelihoods",
    "Priors",
    "Reconstructions",
    "Validation",
    "events",
    "of",
    "plot_losses",
    "regions",
    "use_figures",
]


def plot_losses(folder: Path, headline: tuple[str, str]) -> None:
    """Draw metrics.jsonl as loss-curve.png, where matplotlib (the extra `plots`) is installed.

    Args:
        folder: of the run.
        headline: name of a figure in the events, and its label.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    found = [*events(folder / "metrics.jsonl")]
    figure = Figure(figsize=(8, 6), layout="constrained")
    quality, use = figure.subplots(2, 1, sharex=True)
    for event, label in (("step", "training crops"), ("validation", "validation, averaged weights")):
        points = [e for e in found if e["event"] == event]
        shown = [e for e in points if headline[0] in e]
        quality.plot([e["step"] for e in shown], [e[headline[0]] for e in shown], label=label)
        if points and "perplexity" in points[0]:
            spread = [e["perplexity"] for e in points]
            use.plot([e["step"] for e in points], spread, label=f"perplexity, {label}")
    quality.set_ylabel(headline[1])
    use.set_ylabel("codes")
    use.set_xlabel("step")
    quality.legend()
    if use.lines:
        use.legend()
    with atomically(folder / "loss-curve.png") as file:
        figure.savefig(file, format="png", dpi=100)


def events(path: Path) -> Iterator[Figures]:
    """The events of a run from its metrics.jsonl, without lines that were cut off when it was killed."""
    for line in path.read_text(errors="replace").splitlines():
        with suppress(ValueError):
            yield json.loads(line)
