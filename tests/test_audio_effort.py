"""The search for codes of audio, and targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coded import codes_in, codes_of, decode_audio, stereo
from conftest import draw, sing
from vqcodec import pipeline, weights
from vqcodec.errors import TargetError
from vqcodec.media import Audio
from vqcodec.models import losses
from vqcodec.models.vqvae import AudioVQVAE


@pytest.fixture(scope="module")
def codec(small_sound: str) -> AudioVQVAE:
    """The model of `small_sound`, which nobody may change."""
    return weights.load(small_sound, "cpu")


def test_effort_brings_audio_nearer_and_decoders_do_not_care(small_sound: str, codec: AudioVQVAE) -> None:
    """Chunk by chunk, channel by channel, by the model's own distortion."""
    distortions = []
    for effort in (1, 2):
        encoded = pipeline.encode_file(stereo(), pipeline.EncodeOptions(model=small_sound, effort=effort))
        assert np.array_equal(codes_of(encoded.data, codec), codes_in(encoded))
        decoded = torch.from_numpy(pipeline.reconstruct(encoded).signal)[:, None]
        terms = losses.spectral(decoded, torch.from_numpy(encoded.original.signal)[:, None], codec.rate)
        distortions.append(float(codec.weighted(terms)))
    assert distortions[1] < 0.97 * distortions[0]


@pytest.mark.parametrize("count", [1, 64, 65, 1024, 1025])
def test_effort_with_short_audio(small_sound: str, count: int) -> None:
    data = pipeline.encode(Audio.of(sing(0.1)[:count], 16_000), model=small_sound, effort=2)
    assert decode_audio(data, small_sound).frames == count


def test_effort_where_gradients_are_off(small_sound: str) -> None:
    """Weights that were first loaded there are used elsewhere afterwards."""
    audio = Audio.of(sing(0.3), 16_000)
    weights._load.cache_clear()
    with torch.inference_mode():
        inside = pipeline.encode(audio, model=small_sound, effort=2)
        pixels = pipeline.encode(draw(32, 32), model="vqvae-image", effort=2)
    assert inside == pipeline.encode(audio, model=small_sound, effort=2)
    assert pixels == pipeline.encode(draw(32, 32), model="vqvae-image", effort=2)
    assert torch.is_grad_enabled()


def test_effort_with_targets_and_without_the_prior(small_sound: str) -> None:
    audio = Audio.of(sing(0.3), 16_000)
    plain = pipeline.encode(audio, model=small_sound, effort=2)
    assert pipeline.encode(audio, model=small_sound, effort=2, target_size=len(plain)) == plain
    with pytest.raises(TargetError) as caught:
        pipeline.encode(audio, model=small_sound, effort=2, target_size=len(plain) - 1)
    assert caught.value.hint == "a larger target, or --effort 1"
    fast = pipeline.encode(audio, model=small_sound, effort=2, fast=True)
    assert decode_audio(fast, small_sound).frames == audio.frames
