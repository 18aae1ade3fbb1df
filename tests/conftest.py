"""Pictures and sounds made by code, and small trained models that the tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
from cli_fakes import install
from vqcodec import training

torch.set_num_threads(1)
"""Such small networks gain nothing by more, and wait for minutes where another program has the other core."""


def draw(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Something like a photograph, uint8 [H, W, 3]: slopes, edges, texture and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 64
    picture = np.empty((height, width, 3))
    for channel in range(3):
        a, b, c = rng.uniform(-1, 1, 3)
        picture[..., channel] = 128 + 60 * np.sin(a * x + b * y + c) + 25 * np.sin(9 * b * x - 7 * a * y)
    for _ in range(6):
        top, left = rng.integers(0, max(height, 2)), rng.integers(0, max(width, 2))
        bottom, right = top + rng.integers(8, 64), left + rng.integers(8, 64)
        picture[top:bottom, left:right] += rng.uniform(-80, 80, 3)
    picture += rng.normal(0, 3, picture.shape)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def photo(name: str, width: int = 40, height: int = 30, seed: int = 0) -> np.ndarray:
    """Save an image made by code; its pixels."""
    pixels = draw(width, height, seed)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(name)
    return pixels


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 pictures, PNG, 96 x 80."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        PIL.Image.fromarray(draw(96, 80, number)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def small_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> training.Run:
    """A codec of 64 codes, trained for 30 steps."""
    return training.train(
        [photos],
        model="vqvae-image",
        stage="codec",
        output=tmp_path_factory.mktemp("runs") / "small",
        steps=30,
        batch=4,
        crop=64,
        checkpoint_every=15,
        overrides=SMALL,
    )


SMALL = {
    "codes": "64",
    "encoder_width": "16",
    "encoder_hidden": "8",
    "encoder_blocks": "1",
    "decoder_width": "16",
    "decoder_hidden": "8",
    "decoder_blocks": "1",
}
"""Settings of a model that trains in seconds."""


@pytest.fixture(scope="session")
def small(small_run: training.Run) -> str:
    """The weights file of `small_run`."""
    return str(small_run.best)


def sing(seconds: float, rate: int = 16_000, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Something like a voice, float32 [N, C]: gliding harmonics in syllables, with a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    sound = np.empty((len(time), channels), np.float32)
    for channel in range(channels):
        pitch = rng.uniform(100, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time))
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        voice = sum(np.sin(n * phase) / n for n in range(1, 9))
        voice *= 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(2, 5) * time)
        sound[:, channel] = 0.15 * voice + rng.normal(0, 0.002, len(time))
    return sound


@pytest.fixture(scope="session")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 6 sounds, WAV, 1 second at 16 kHz each."""
    folder = tmp_path_factory.mktemp("talks")
    for number in range(6):
        soundfile.write(folder / f"{number:02}.wav", sing(1, seed=number), 16_000, "PCM_16")
    return folder


SMALL_SOUND = {
    "codes": "16",
    "encoder_width": "8",
    "encoder_blocks": "1",
    "decoder_width": "8",
    "decoder_hidden": "8",
    "decoder_blocks": "1",
    "unquantised": "2",
}
"""The same for sounds."""


@pytest.fixture(scope="session")
def small_sound(talks: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights file of a codec for sounds, of 16 codes, trained for 2 steps."""
    run = training.train(
        [talks],
        model="vqvae-audio",
        stage="codec",
        output=tmp_path_factory.mktemp("runs") / "small-sound",
        steps=2,
        batch=2,
        crop=0.2,
        device="cpu",
        overrides=SMALL_SOUND,
    )
    return str(run.best)


TINY = {"embedding": "4", "width": "8", "hidden": "4", "blocks": "1"}
"""Settings of a prior that trains in seconds."""

TINY_SOUND = {"width": "8", "skip": "8", "layers": "2", "stacks": "1"}
"""The same for sounds."""


@pytest.fixture(scope="session")
def with_prior(photos: Path, small: str, tmp_path_factory: pytest.TempPathFactory) -> training.Run:
    """The small codec, whose prior was trained for 40 steps."""
    return training.train(
        photos,
        stage="prior",
        start=small,
        output=tmp_path_factory.mktemp("runs") / "small",
        steps=40,
        batch=4,
        crop=64,
        checkpoint_every=20,
        learning_rate=1e-2,
        overrides=TINY,
    )


@pytest.fixture(scope="session")
def sound_prior(talks: Path, small_sound: str, tmp_path_factory: pytest.TempPathFactory) -> training.Run:
    """The same for sounds, 3 steps."""
    return training.train(
        talks,
        stage="prior",
        start=small_sound,
        output=tmp_path_factory.mktemp("runs") / "small-sound",
        steps=3,
        batch=2,
        crop=0.4,
        overrides=TINY_SOUND,
    )


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A folder with two images, as the stand-in encoder takes them, and a note of every call."""
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(b"a" * 1000)
    Path("b.png").write_bytes(b"b" * 1000)
    return install(monkeypatch)
