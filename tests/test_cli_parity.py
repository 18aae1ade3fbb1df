"""The commands and the functions of the package: same names, same defaults."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vqcodec
from conftest import SMALL, draw, photo
from vqcodec import media, training
from vqcodec.cli.decode import decode as decode_command
from vqcodec.cli.encode import encode as encode_command
from vqcodec.cli.evaluate import evaluate as evaluate_command
from vqcodec.cli.info import info as info_command
from vqcodec.cli.train import train as train_command


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


EVERYWHERE = {"no_progress", "jobs", "verbose", "quiet", "json", "color", "version"}
FILES = {"output", "recursive", "force", "skip_existing", "no_mtime", "dry_run", "files_from", "null", "ray"}
API_ONLY = {"progress", "report", "on_error", "gallery"}
SAME = {
    ("all", "all"),
    (None, inspect.Parameter.empty),
    (None, ()),
    ("", ()),
    (None, media.MAX_PIXELS),
    (None, media.MAX_SECONDS),
}
"""Defaults that are written differently and mean the same: a command leaves None out of its call, takes
inputs from a list where none are named, and has a type for each list of names."""


@pytest.mark.parametrize(
    ("command", "function", "renamed", "only_command"),
    [
        (encode_command, vqcodec.encode, {"files": "source"}, FILES | {"verify"}),
        (decode_command, vqcodec.decode, {"bitstreams": "data"}, FILES | {"format", "test"}),
        (
            evaluate_command,
            vqcodec.evaluate,
            {"files": "sources"},
            {"output", "plot", "report", "force", "recursive"},
        ),
        (train_command, vqcodec.train, {}, set()),
        (info_command, vqcodec.info, {"bitstreams": "data"}, {"check", "recursive"}),
    ],
    ids=["encode", "decode", "evaluate", "train", "info"],
)
def test_parity(
    command: Callable[..., Any], function: Callable[..., Any], renamed: dict[str, str], only_command: set[str]
) -> None:
    """Same names, same defaults; file handling and console aside."""
    options = {
        renamed.get(name, name): parameter.default
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in EVERYWHERE | only_command
    }
    parameters = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in API_ONLY
    }
    assert options.keys() == parameters.keys()
    for name, default in options.items():
        theirs = parameters[name]
        equal = default == theirs and type(default) is type(theirs)
        assert equal or (default, theirs) in SAME, f"{name}: {default!r} and {theirs!r}"


def test_python_as_the_guide_has_it(small: str, photos: Path) -> None:
    photo("photo.png")
    data = vqcodec.encode("photo.png", quality=3, model=small)
    image = vqcodec.decode(data, model=small)
    image.save("again.png")
    assert np.array_equal(media.read_image("again.png").samples, image.samples)
    assert vqcodec.info(data).bpp == 8 * len(data) / 1200
    assert len(vqcodec.evaluate(str(photos), model=small)) == 12
    run = vqcodec.train(
        str(photos),
        model="vqvae-image",
        stage="codec",
        steps=1,
        batch=1,
        crop=16,
        overrides={**SMALL, "linear_start": "false"},
    )
    assert isinstance(run, training.Run)
    assert vqcodec.decode(io.BytesIO(vqcodec.encode(draw(8, 8), model=run.best)), model=run.best).width == 8
