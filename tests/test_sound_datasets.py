"""Sounds for training: segments, what is read, what is skipped."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import draw, sing
from PIL import Image
from vqcodec.errors import TrainingError
from vqcodec.training import datasets
from vqcodec.training.datasets import Clips, Entry
from vqcodec.transform import loudness
from vqcodec.transform.highpass import high_pass


def wav(samples: np.ndarray, rate: int = 16_000, format: str = "WAV", subtype: str = "FLOAT") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, subtype, format=format)
    return stream.getvalue()


def numbered(*lengths: int) -> Clips:
    """Sounds whose every sample tells which it is and where: (number + place / 1e5) / 10."""
    arrays = [((n + 1 + np.arange(length) / 1e5) / 10).astype("f4") for n, length in enumerate(lengths)]
    return Clips(arrays, [str(n) for n in range(len(lengths))], [])


def test_a_batch_depends_on_its_arguments_alone() -> None:
    sounds = numbered(9000, 4000, 7000)
    first = sounds.batch(5, seed=1, size=8, crop=0.1)
    sounds.batch(6, seed=1, size=3, crop=0.2)
    np.random.default_rng().random()
    torch.rand(3)
    assert torch.equal(numbered(9000, 4000, 7000).batch(5, seed=1, size=8, crop=0.1), first)
    assert torch.equal(sounds.batch(5, seed=1, size=3, crop=0.1), first[:3]), "nor on the size"
    others = {sounds.batch(step, seed=1, size=8, crop=0.1).numpy().tobytes() for step in range(30)}
    assert len(others) == 30
    assert not torch.equal(sounds.batch(5, seed=2, size=8, crop=0.1), first)
    assert not torch.equal(sounds.batch(datasets.START + 5, seed=1, size=8, crop=0.1), first)


@pytest.mark.parametrize(
    ("crop", "length"), [(0.1, 1600), (0.64, 10_240), (0.001, 64), (0.0001, 64), (0.0062, 128), (0.3, 4800)]
)
def test_segments_are_a_multiple_of_the_stride(crop: float, length: int) -> None:
    batch = numbered(3000).batch(0, seed=0, size=2, crop=crop)
    assert batch.shape == (2, 1, length) and batch.dtype == torch.float32
    assert length % 64 == 0


def test_segments_are_real_samples_louder_or_softer_or_turned_over() -> None:
    sounds = numbered(2000, 1900)
    batch = sounds.batch(0, seed=0, size=400, crop=0.1).numpy()[:, 0]
    seen, signs, gains = set(), [], []
    for segment in batch:
        # The ratio of two samples is that of the original, whatever the loudness.
        ratio = segment[-1] / segment[0]
        place = {
            (n, start): abs(sound[start + 1599] / sound[start] - ratio)
            for n, sound in enumerate(sounds.arrays)
            for start in range(len(sound) - 1599)
        }
        n, start = min(place, key=lambda key: place[key])
        original = sounds.arrays[n][start : start + 1600]
        gain = float(segment @ original / (original @ original))
        assert np.abs(segment - gain * original).max() < 1e-5
        seen.add(n)
        signs.append(gain > 0)
        gains.append(abs(gain))
    assert seen == {0, 1}
    assert 150 < sum(signs) < 250
    assert min(gains) < 0.55 and max(gains) > 1.8 and 0.5 <= min(gains) <= max(gains) <= 2


def test_every_place_can_begin_a_segment() -> None:
    sound = np.zeros(1610, np.float32)
    sound[800] = 0.1
    batch = Clips([sound], ["a"], []).batch(0, seed=0, size=200, crop=0.1).numpy()[:, 0]
    starts = {800 - int(np.flatnonzero(segment)[0]) for segment in batch}
    assert starts == set(range(11)), "the first, the last and all between"


def test_no_segment_is_clipped() -> None:
    rng = np.random.default_rng(0)
    loud = Clips([np.clip(rng.normal(0, 0.5, 5000), -1, 1).astype("f4")], ["a"], [])
    batch = loud.batch(0, seed=0, size=200, crop=0.1)
    assert float(batch.abs().max()) <= 1
    assert float(batch.abs().amax(2).min()) < 0.7, "made softer too"
    beyond = Clips([loud.arrays[0] * 5], ["a"], [])
    assert float(beyond.batch(0, seed=0, size=20, crop=0.1).abs().max()) <= 1


def test_short_sounds_are_followed_by_silence() -> None:
    batch = numbered(100).batch(0, seed=0, size=5, crop=0.1)
    assert batch.shape == (5, 1, 1600)
    assert (batch[:, :, :100] != 0).all() and not batch[:, :, 100:].any()
    silent = Clips([np.zeros(100, np.float32)], ["a"], [])
    assert not silent.batch(0, seed=0, size=5, crop=0.1).any()


def folder_of(path: Path) -> Path:
    (path / "a.wav").write_bytes(wav(sing(0.5)))
    (path / "b.flac").write_bytes(wav(sing(0.25, 44_100, 2), 44_100, "FLAC", "PCM_16"))
    (path / "c.wav").write_bytes(wav(sing(0.5))[:5000])
    (path / "d.txt").write_text("notes")
    (path / "e.wav").touch()
    broken = sing(0.1)
    broken[7] = np.nan
    (path / "f.wav").write_bytes(wav(broken))
    Image.fromarray(draw(16, 12)).save(path / "g.png")
    (path / "h.wav").write_bytes(wav(sing(0.1), 4_000))
    with tarfile.open(path / "i.tar", "w") as archive:
        for name, content in (("ok.wav", wav(sing(0.2))), ("bad.wav", b"RIFF\0\0\0\0WAVE")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_files_that_are_no_sounds_are_skipped_and_listed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    files = [*datasets.entries([folder]), *datasets.entries([folder / "i.tar"])]
    sounds = datasets.load(files, "audio")
    assert isinstance(sounds, Clips) and len(sounds) == 4
    assert sounds.names == [str(folder / "a.wav"), *[str(folder / "b.flac")] * 2, "i.tar:ok.wav"]
    assert [len(array) for array in sounds.arrays] == [8000, 4000, 4000, 3200]
    assert all(array.dtype == np.float32 and array.base is None for array in sounds.arrays)
    assert np.array_equal(sounds.arrays[0], inside(high_pass(sing(0.5).T)[0]))
    told = dict(line.removeprefix(f"{folder}/").split(": ", 1) for line in sounds.skipped)
    assert set(told) == {"c.wav", "d.txt", "e.wav", "f.wav", "g.png", "h.wav", "i.tar", "i.tar:bad.wav"}
    assert told["c.wav"].startswith("truncated: ")
    assert told["d.txt"].startswith("not an image or audio file")
    assert told["e.wav"] == "empty file"
    assert told["f.wav"] == "NaN samples"
    assert told["h.wav"] == "4,000 samples a second"
    again: list[str] = ["before"]
    assert datasets.load(files, "audio", skipped=again).skipped is again
    assert again[0] == "before" and len(again) == 9


def test_both_media_from_one_folder(tmp_path: Path) -> None:
    files = datasets.entries([folder_of(tmp_path)])
    pictures, sounds = (datasets.load(files, medium) for medium in ("image", "audio"))
    assert len(pictures) == 1 and len(sounds) == 3
    with pytest.raises(KeyError):
        datasets.load(files, "video")


def test_the_rate_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(sing(0.5, 48_000), 48_000))
    files = datasets.entries([tmp_path])
    sounds = datasets.load(files, "audio", rate=24_000)
    assert sounds.rate == 24_000 and len(sounds.arrays[0]) == 12_000
    assert sounds.batch(0, seed=0, size=1, crop=0.1).shape == (1, 1, 2432)


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(TrainingError, match=r"no readable audio: .*notes\.txt: not an image") as caught:
        datasets.load(datasets.entries([tmp_path]), "audio")
    assert "WAV" in caught.value.hint
    with pytest.raises(TrainingError, match="no readable audio"):
        datasets.load([], "audio")
    with pytest.raises(TrainingError, match="gone"):
        datasets.load([Entry(None, str(tmp_path / "gone.wav"))], "audio")


def inside(channel: np.ndarray) -> np.ndarray:
    """As loud as encoders have it inside."""
    return channel * np.float32(1 / loudness.factor_of(loudness.gain_of(channel)))


def test_training_sees_the_loudness_that_is_coded(tmp_path: Path) -> None:
    """A folder and a copy of it 30 dB softer give the same batches; what is silent teaches nothing."""
    for folder, level in (("loud", 1.0), ("soft", 10**-1.5)):
        (tmp_path / folder).mkdir()
        for number in range(3):
            content = wav(sing(0.6, seed=number) * level, subtype="FLOAT")
            (tmp_path / folder / f"{number}.wav").write_bytes(content)
        (tmp_path / folder / "silence.wav").write_bytes(wav(np.zeros((8000, 1), np.float32)))
    loud, soft = (datasets.load(datasets.entries([tmp_path / name]), "audio") for name in ("loud", "soft"))
    assert len(loud) == len(soft) == 3
    first, second = (sounds.batch(5, seed=0, size=8, crop=0.3) for sounds in (loud, soft))
    assert torch.allclose(first, second, rtol=1e-4, atol=1e-6)


def test_long_sounds_are_kept_from_their_beginning(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.wav").write_bytes(wav(sing(3)))
    files = datasets.entries([tmp_path])
    sounds = datasets.load(files, "audio", memory=2 * 4 * 20_000)
    assert [len(array) for array in sounds.arrays] == [20_000, 20_000]
    assert np.array_equal(sounds.arrays[0], inside(high_pass(sing(3)[:20_000].T)[0]))
    # A second of each is little enough.
    assert [len(array) for array in datasets.load(files, "audio", memory=1).arrays] == [16_000] * 2


@pytest.mark.parametrize("seed", range(3))
def test_what_is_held_out_can_be_read(tmp_path: Path, seed: int) -> None:
    for number in range(3):
        (tmp_path / f"{number}.wav").write_bytes(wav(sing(0.1, seed=number)))
        (tmp_path / f"{number}.txt").write_text("notes")
    training, validation = datasets.load_split(datasets.entries([tmp_path]), 0.05, seed, "audio", rate=16_000)
    assert len(validation) == 1 and len(training) == 2
    assert not set(training.names) & set(validation.names)
