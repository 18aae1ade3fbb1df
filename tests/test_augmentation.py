"""Rooms, equalisers and noise for training on audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import vqcodec
from conftest import sing
from vqcodec import training
from vqcodec.training import datasets
from vqcodec.training.datasets import Augmentation, Clips
from vqcodec.training.datasets.augmentation import DISTANCE, REVERBERATION, SOUND, VOLUME, impulse_response
from vqcodec.transform.highpass import CUTOFF

RATE = 16_000


def augmented(how: Augmentation, samples: np.ndarray, seed: int, start: int = 0) -> np.ndarray:
    return how.apply(samples, start, RATE, np.random.default_rng(seed))


def white(count: int = 64_000) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(count).astype(np.float32) * np.float32(0.1)


def test_nothing_is_the_default() -> None:
    """Not even a random number is drawn, so that older trainings see the batches that they saw."""
    rng = np.random.default_rng(0)
    samples = white(1000)
    assert np.array_equal(Augmentation().apply(samples, 300, RATE, rng), samples[300:])
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("how", [Augmentation(1.0), Augmentation(equaliser=9), Augmentation(0.5, 9, 0.1)])
def test_segments_are_as_loud_as_before(how: Augmentation) -> None:
    samples = white()
    for seed in range(8):
        assert augmented(how, samples, seed, 20_000).shape == (44_000,)
        found = augmented(how, samples, seed)
        assert found.dtype == np.float32
        ratio = float(np.square(found).mean() / np.square(samples).mean())
        assert ratio == pytest.approx(1, abs=0.025), "noise adds up to a hundredth"
    assert not augmented(how, np.zeros(5000, np.float32), 1).any(), "silence stays silent"


def test_a_room_is_as_its_formula_says() -> None:
    """A click; what follows falls by 60 dB in the time of the room, and is as loud as its volume says."""
    decays, shares = [], []
    for seed in range(40):
        response = impulse_response(RATE, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        volume, distance = (np.exp(rng.uniform(*np.log(span))) for span in (VOLUME, DISTANCE))
        decay = rng.uniform(*REVERBERATION)
        assert len(response) == round(decay * RATE) and response[0] == pytest.approx(1, abs=0.7)
        power = np.square(response[1:])
        remaining = 10 * np.log10(np.cumsum(power[::-1])[::-1] / power.sum())
        low, high = (int(np.argmax(remaining < level)) for level in (-5, -25))
        decays.append((high - low) / RATE * 3 / decay)
        # The integral of 4 pi c^3 t^2 / V times (d / (c t))^2 over an exponential decay.
        expected = 4 * np.pi * SOUND * distance**2 / volume * decay / np.log(1e6)
        shares.append(power.sum() / expected)
    assert min(decays) > 0.5 and max(decays) < 1.3, "high frequencies decay faster"
    assert 0.5 < np.median(shares) < 1.1


def test_what_comes_before_a_segment_is_heard_in_it() -> None:
    samples = np.zeros(20_000, np.float32)
    samples[5000], samples[-1] = 0.5, 0.5
    found = augmented(Augmentation(1.0), samples, 3, 6000)
    assert np.abs(found[:1000]).max() > 0
    assert Augmentation(1.0).context == REVERBERATION[1] and Augmentation(0, 9, 0.1).context == 0


def test_an_equaliser_changes_octaves_within_its_bounds() -> None:
    samples = white()
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    spread = []
    for seed in range(20):
        found = augmented(Augmentation(equaliser=9), samples, seed)
        edges = 62.5 * 2.0 ** np.arange(8)
        gains = []
        for low, high in zip(edges, edges[1:], strict=False):
            band = (frequencies >= low) & (frequencies < high)
            gains.append(np.abs(np.fft.rfft(found)[band]).mean() / np.abs(np.fft.rfft(samples)[band]).mean())
        spread.append(float(20 * np.log10(max(gains) / min(gains))))
    assert sum(s < 0.01 for s in spread) in range(4, 17), "half are left alone"
    assert 6 < max(spread) < 18.1


def test_noise_is_soft_and_differs_in_colour() -> None:
    samples = white()
    slopes = []
    for seed in range(30):
        noise = augmented(Augmentation(noise=0.1), samples, seed) - samples
        share = float(np.sqrt(np.square(noise).mean() / np.square(samples).mean()))
        assert share <= 0.1001
        if share > 1e-3:
            power = np.square(np.abs(np.fft.rfft(noise)))
            inaudible = np.fft.rfftfreq(len(noise), 1 / RATE) < CUTOFF
            assert power[inaudible].sum() < 0.01 * power.sum(), "no file has such noise once it is filtered"
            slopes.append(power[len(power) // 2 :].sum() / power.sum())
    assert len(slopes) > 5 and min(slopes) < 0.2 and max(slopes) > 0.35


def test_batches_are_augmented_and_depend_on_their_arguments_alone() -> None:
    clips = Clips([sing(2, seed=n)[:, 0] for n in range(3)], ["a", "b", "c"], [])
    rooms = clips.augmented(Augmentation(0.5, 9, 0.1))
    first = rooms.batch(3, seed=1, size=6, crop=0.5)
    assert torch.equal(rooms.batch(3, seed=1, size=6, crop=0.5), first)
    assert torch.equal(rooms.batch(3, seed=1, size=2, crop=0.5), first[:2])
    assert not torch.equal(clips.batch(3, seed=1, size=6, crop=0.5), first)
    assert float(first.abs().max()) <= 1


def test_segments_hear_what_comes_before_them() -> None:
    """Segments behind a click have its reverberation, and are silent without."""
    clip = np.zeros(6000, np.float32)
    clip[:50] = 0.5
    clips = Clips([clip], ["a"], [])
    dry, wet = (
        clips.augmented(how).batch(0, seed=0, size=60, crop=0.2)[:, 0]
        for how in (Augmentation(), Augmentation(1.0))
    )
    assert sum(bool(segment.any()) for segment in dry) < 15
    assert sum(bool(segment.any()) for segment in wet) == 60


def test_a_training_is_told_of_rooms(talks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--set reverberation` and the others reach the segments; validation stays as it is."""
    seen: list[Augmentation] = []
    take = datasets.augmented

    def noted(data: Clips, held_out: Clips, images: object, audio: Augmentation) -> tuple[Clips, Clips]:
        seen.append(audio)
        found = take(data, held_out, images, audio)  # type: ignore[arg-type]
        assert found[1] is held_out and found[0].augmentation == audio  # type: ignore[union-attr]
        return found  # type: ignore[return-value]

    monkeypatch.setattr(datasets, "augmented", noted)
    small = {"encoder_width": "8", "decoder_width": "8", "decoder_hidden": "8", "codes": "16"}
    chosen = {"reverberation": "0.5", "equaliser": "6", "noise": "0.05", **small}
    out = tmp_path / "out"
    training.train(talks, model="vqvae-audio", stage="codec", output=out, steps=2, batch=2, overrides=chosen)
    assert seen == [Augmentation(0.5, 6.0, 0.05)]
    assert vqcodec.weights.load(str(out / "best.safetensors"), "cpu").medium == "audio"
