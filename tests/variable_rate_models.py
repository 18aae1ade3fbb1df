"""Small variable-rate models, trained once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from vqcodec import training

MODELS = {
    "ppca-image": {"components": "24", "context_width": "12", "context_hidden": "8", "context_near": "24"},
    "vae-image": {
        "components": "24",
        **{name: "8" for name in ("fine", "fine_hidden", "coarse", "coarse_hidden")},
        **{name: "1" for name in ("encoder_fine", "encoder_coarse", "decoder_fine", "decoder_coarse")},
        "context_width": "12",
        "context_hidden": "8",
        "context_blocks": "1",
        "context_near": "24",
    },
}
"""Name -> settings of a model that trains in seconds."""

_RUNS: dict[str, training.Run] = {}


def train(name: str, photos: Path, output: Path) -> training.Run:
    """12 steps with two checkpoints."""
    return training.train(
        photos,
        model=name,
        output=output,
        steps=12,
        batch=2,
        crop=64,
        checkpoint_every=6,
        overrides=MODELS[name],
    )


def trained(name: str, photos: Path, factory: pytest.TempPathFactory) -> training.Run:
    """The same, once in a session; nobody may change it."""
    if name not in _RUNS:
        _RUNS[name] = train(name, photos, factory.mktemp("runs") / name)
    return _RUNS[name]


@pytest.fixture(scope="module", params=list(MODELS))
def run(
    request: pytest.FixtureRequest, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> training.Run:
    """A run of each model."""
    return trained(request.param, photos, tmp_path_factory)


@pytest.fixture
def model(run: training.Run) -> str:
    """The weights file of the run."""
    return str(run.best)
