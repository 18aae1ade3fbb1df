"""`evaluate` on audio: a stand-in codec whose figures are known, Opus, and a small real model."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import soundfile
import soxr
from conftest import draw, sing
from vqcodec import evaluation, media, pipeline, weights
from vqcodec.errors import MediaError, UsageError
from vqcodec.evaluation import audio as audio_rows
from vqcodec.evaluation import baselines, evaluate
from vqcodec.evaluation import image as image_rows
from vqcodec.metrics import audio as sound_metrics
from vqcodec.models.base import Card


@pytest.fixture(autouse=True)
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of the extra are measured where a test asks for them, installed or not."""
    monkeypatch.setattr(sound_metrics, "installed", lambda: ())


@dataclass
class Encoded:
    """What the stand-in encoder gives: the interface of the real one."""

    data: bytes
    model: str = "fake"
    quality: float = 3.0
    estimate_bits: float = 4000.0
    bits_per_code: float = 8.0
    count: int = 1000
    raw_bits: int = 9000


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """A codec that adds a tone of a tenth of the energy of the audio: its SI-SDR is 10 dB."""
    calls: list[dict[str, object]] = []
    last: list[media.Audio] = []

    def load(model: str | None = None, device: str = "auto") -> SimpleNamespace:
        medium = "image" if model == "for-images" else "audio"
        name = "fake" if model == weights.DEFAULTS["audio"] else model
        return SimpleNamespace(card=Card(str(name), medium, "fake", {}), medium=medium)

    def encode_file(source: media.Audio, options: pipeline.EncodeOptions) -> Encoded:
        calls.append(dataclasses.asdict(options))
        assert source.tags == {}
        last[:] = [source]
        return Encoded(bytes(1000))

    def decode(data: bytes, **_options: object) -> media.Audio:
        (source,) = last
        noise = np.empty_like(source.signal)
        for number, channel in enumerate(source.signal):
            other = np.random.default_rng(number).normal(size=len(channel))
            energy = float(channel @ channel)
            other -= channel * (float(other @ channel) / max(energy, 1e-9))
            noise[number] = other * math.sqrt(energy / 10 / float(other @ other))
        return replace(source, signal=source.signal + noise)

    monkeypatch.setattr(weights, "load", load)
    monkeypatch.setattr(pipeline, "encode_file", encode_file)
    monkeypatch.setattr(pipeline, "decode", decode)
    return calls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of audio and a file of another kind."""
    inside = tmp_path / "talks"
    inside.mkdir()
    soundfile.write(inside / "a.wav", sing(2, seed=1), 16_000)
    soundfile.write(inside / "b.flac", sing(0.5, 44_100, channels=2, seed=2), 44_100)
    (inside / "notes.txt").write_text("no audio")
    return inside


def test_rows_of_audio(folder: Path, codec: list[dict[str, object]], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    rows = evaluate(
        folder, save_decoded=tmp_path / "kept", device="cpu", progress=lambda *step: seen.append(step)
    )
    assert all(tuple(row) == audio_rows.COLUMNS for row in rows)
    assert [Path(row["file"]).name for row in rows] == ["a.wav", "b.flac"]
    first, second = rows
    assert (first["codec"], first["q"], first["bytes"]) == ("fake", 3.0, 1000)
    assert (first["kbps"], first["estimate_kbps"]) == (4.0, 2.0)
    assert second["kbps"] == pytest.approx(16)
    assert [first[name] for name in ("seconds", "rate", "channels")] == [2.0, 16_000, 1]
    assert [second[name] for name in ("seconds", "rate", "channels")] == [0.5, 44_100, 2]
    for row in rows:
        assert row["si_sdr_db"] == pytest.approx(10, abs=1e-3)
        assert 0.05 < row["log_mel"] < 2
        assert row["pesq_wb"] is row["stoi"] is row["estoi"] is row["visqol"] is None
        assert row["encode_seconds"] >= 0 and row["decode_seconds"] >= 0
        assert (row["bits_per_code"], row["saving"], row["gap"]) == (8.0, pytest.approx(1 / 9), 1.0)
    assert seen == [(1, 2), (2, 2)]
    assert codec[0]["quality"] is None and codec[0]["device"] == "cpu"
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["a.fake.q3.wav", "b.fake.q3.wav"]
    assert soundfile.info(tmp_path / "kept" / "b.fake.q3.wav").samplerate == 44_100


def test_figures_of_channels() -> None:
    voice, other = sing(1, channels=2).T
    silence = np.zeros_like(voice)
    same = audio_rows.figures(np.stack((voice, other)), np.stack((voice, other)), 16_000)
    assert (same["log_mel"], same["si_sdr_db"]) == (0, math.inf)
    noisy = voice + np.float32(0.01) * np.random.default_rng(0).normal(size=len(voice)).astype(np.float32)
    alone = audio_rows.figures(noisy[None], voice[None], 16_000)
    assert alone["si_sdr_db"] == sound_metrics.si_sdr(noisy, voice)
    # A silent channel that came out silent has nothing to say of the other.
    beside = audio_rows.figures(np.stack((noisy, silence)), np.stack((voice, silence)), 16_000)
    assert beside["si_sdr_db"] == alone["si_sdr_db"]
    assert beside["log_mel"] == pytest.approx(alone["log_mel"] / 2)
    lost = audio_rows.figures(silence[None], voice[None], 16_000)
    assert lost["si_sdr_db"] == audio_rows.WORST_DB
    assert lost["log_mel"] > 1


def test_figures_of_the_extra_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def perceptual(ours: np.ndarray, theirs: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
        asked.append((len(ours), names))
        return {"stoi": 0.5 + len(asked) / 10, "visqol": math.nan}

    monkeypatch.setattr(sound_metrics, "installed", lambda: ("stoi", "visqol"))
    monkeypatch.setattr(sound_metrics, "perceptual", perceptual)
    two = sing(0.5, channels=2).T
    found = audio_rows.figures(two, two, 16_000)
    assert asked == [(8000, ("stoi", "visqol"))] * 2
    assert found["stoi"] == pytest.approx(0.65)
    assert found["visqol"] is None, "not a number is no figure"
    assert found["pesq_wb"] is None


def test_opus_stands_beside_at_its_own_rate(folder: Path, codec: list[dict[str, object]]) -> None:
    rows = evaluate(folder / "a.wav", against=["opus", "opus:32"])
    assert [(row["codec"], row["q"]) for row in rows] == [("fake", 3.0), ("opus", 6.0), ("opus", 32.0)]
    assert all(tuple(row) == audio_rows.COLUMNS for row in rows)
    _, low, high = rows
    original = media.read_audio(folder / "a.wav")
    for row, name in ((low, "opus"), (high, "opus:32")):
        coded = baselines.audio.run(original, name)
        assert row["bytes"] == len(coded.data)
        assert row["kbps"] == len(coded.data) * 8 / 1000 / 2
        assert row["log_mel"] == sound_metrics.log_mel_distance(coded.signal[0], original.signal[0], 16_000)
        assert row["estimate_kbps"] is None
    assert 5 < low["kbps"] < 12
    assert 25 < high["kbps"] < 45
    # Only where both are aligned to a sample is SI-SDR this good.
    assert high["si_sdr_db"] > low["si_sdr_db"] > 3
    assert high["log_mel"] < low["log_mel"]


def test_opus_of_stereo_and_of_audio_of_no_length() -> None:
    pair = media.Audio.of(sing(1, 44_100, channels=2), 44_100)
    coded = baselines.audio.run(pair, "opus:48")
    assert coded.signal.shape == pair.signal.shape == (2, 16_000)
    assert 40 < len(coded.data) * 8 / 1000 < 70
    for ours, theirs in zip(coded.signal, pair.signal, strict=True):
        assert sound_metrics.si_sdr(ours, theirs) > 5
    short = media.Audio.of(np.full(1, 0.5, np.float32), 16_000)
    assert baselines.audio.run(short, "opus").signal.shape == (1, 1)


def test_opus_that_is_decoded_at_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = media.Audio.of(sing(0.5), 16_000)
    wide = soxr.resample(voice.signal.T, 16_000, 48_000)
    monkeypatch.setattr(baselines.audio.soundfile, "read", lambda *_, **__: (wide, 48_000))
    coded = baselines.audio.run(voice, "opus")
    assert coded.signal.shape == voice.signal.shape
    assert sound_metrics.si_sdr(coded.signal[0], voice.signal[0]) > 30


@pytest.mark.parametrize("name", ["opus:", "opus:fast", "opus:3", "opus:300", "opus:nan"])
def test_rates_that_opus_has_not(name: str) -> None:
    with pytest.raises(UsageError, match="6 to 256 kbit/s, for example opus:12"):
        baselines.check([name])


def test_opus_that_is_not_in_this_libsndfile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines.audio.soundfile, "check_format", lambda *_: False)
    with pytest.raises(UsageError, match="this libsndfile has no opus"):
        baselines.check(["jpeg", "opus"])


def row(codec: str = "ours", q: float = 3, **figures: float | None) -> dict[str, object]:
    return dict.fromkeys(audio_rows.COLUMNS) | {"codec": codec, "q": q} | figures


def test_summary_means_audio_and_divides_totals() -> None:
    short = {"seconds": 10.0, "bytes": 10, "encode_seconds": 1.0, "decode_seconds": 0.5}
    long = {"seconds": 30.0, "bytes": 20, "encode_seconds": 3.0, "decode_seconds": 1.5}
    rows = [
        row(kbps=2.0, log_mel=0.4, si_sdr_db=math.inf, stoi=0.9, **short),
        row(kbps=3.0, log_mel=0.6, si_sdr_db=-2.0, stoi=None, pesq_wb=math.nan, **long),
        row("opus", 6.0, kbps=7.0, log_mel=0.3, si_sdr_db=1.0, **short),
    ]
    ours, opus = evaluation.summary(rows)
    assert tuple(ours) == audio_rows.MEANS
    assert (ours["codec"], ours["q"], ours["files"], ours["bytes"]) == ("ours", 3, 2, 30)
    assert (ours["kbps"], ours["log_mel"], ours["seconds"]) == (2.5, 0.5, 40.0)
    assert (ours["si_sdr_db"], ours["stoi"], ours["pesq_wb"]) == (-2.0, 0.9, None)
    assert (ours["encode_x"], ours["decode_x"]) == (10, 20)
    assert (opus["q"], opus["kbps"]) == (6.0, 7.0)


def mixed_rows() -> list[dict[str, object]]:
    ours = row(file="a.wav", kbps=2.0, log_mel=0.4, seconds=1.0, bytes=9, encode_seconds=1, decode_seconds=1)
    picture = {"file": "a.png", "codec": "ours", "q": 3, "bytes": 10, "bpp": 0.5, "psnr_db": 30.0}
    picture |= {"width": 8, "height": 8, "encode_seconds": 1.0, "decode_seconds": 1.0}
    return [
        ours,
        dict.fromkeys(image_rows.COLUMNS) | picture,
        ours | {"file": "b.wav", "si_sdr_db": -math.inf},
    ]


def test_images_and_audio_are_never_in_one_mean(tmp_path: Path) -> None:
    rows = mixed_rows()
    sound, picture = evaluation.summary(rows)
    assert (sound["files"], sound["kbps"], "bpp" in sound) == (2, 2.0, False)
    assert (picture["files"], picture["bpp"], "kbps" in picture) == (1, 0.5, False)
    evaluation.write_csv(rows, tmp_path / "rows.csv")
    with open(tmp_path / "rows.csv", newline="") as file:
        table = list(csv.DictReader(file))
    # The order is that of the columns, whichever file came first.
    assert tuple(table[0]) == evaluation.COLUMNS
    assert (table[0]["kbps"], table[0]["bpp"], table[1]["bpp"]) == ("2.0", "", "0.5")
    evaluation.write_csv([sound, picture], tmp_path / "means.csv")
    assert (tmp_path / "means.csv").read_text().startswith("codec,q,same_bytes_as,files,bytes,bpp,")
    evaluation.write_csv([rows[0]], tmp_path / "sound.csv")
    assert (tmp_path / "sound.csv").read_text().splitlines()[0] == ",".join(audio_rows.COLUMNS)
    evaluation.write_json(rows, tmp_path / "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text())[2]["si_sdr_db"] is None


def test_plot_of_audio(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = mixed_rows()
    evaluation.plot([rows[0], rows[2]], tmp_path / "sounds.svg")
    drawn = (tmp_path / "sounds.svg").read_text()
    assert "log-mel" in drawn or drawn.count("<path") > 5, "text may be drawn as paths"
    evaluation.plot([rows[0], rows[2]], tmp_path / "one.png")
    evaluation.plot(rows, tmp_path / "two.png")
    with PIL.Image.open(tmp_path / "one.png") as one, PIL.Image.open(tmp_path / "two.png") as two:
        assert two.width == 2 * one.width


def test_models_and_codecs_are_for_the_files_of_their_medium(
    folder: Path, codec: list[dict[str, object]]
) -> None:
    PIL.Image.fromarray(draw(40, 30)).save(folder / "c.png")
    with pytest.raises(UsageError, match="no model for the image among the files"):
        evaluate(folder, model="fake")
    with pytest.raises(UsageError, match="for-images is for image, and there are no such files"):
        evaluate(folder / "a.wav", model=["fake", "for-images"])
    with pytest.raises(UsageError, match="jpeg is for image, and there are no such files"):
        evaluate(folder / "a.wav", against=["jpeg"])
    assert codec == []


def test_broken_audio_raises_or_is_handed_over(folder: Path, codec: list[dict[str, object]]) -> None:
    whole = (folder / "a.wav").read_bytes()
    (folder / "a.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match="truncated: "):
        evaluate(folder)
    failed: list[str] = []
    seen: list[tuple[int, int]] = []
    rows = evaluate(
        folder,
        against=["opus"],
        progress=lambda *step: seen.append(step),
        on_error=lambda path, error: failed.append(path.name),
    )
    assert failed == ["a.wav"]
    assert [row["codec"] for row in rows] == ["fake", "opus"]
    assert seen == [(3, 4), (4, 4)]


def test_real_bitstreams_are_measured_as_they_are(talks: Path, small_sound: str, small: str) -> None:
    paths = sorted(talks.iterdir())[:2]
    rows = evaluate(paths, model=small_sound, against=["opus"], device="cpu")
    assert [row["codec"] for row in rows] == ["small-sound", "opus"] * 2
    for ours, path in zip(rows[::2], paths, strict=True):
        encoded = pipeline.encode_file(path, pipeline.EncodeOptions(model=small_sound, device="cpu"))
        decoded = pipeline.decode(encoded.data, model=small_sound, device="cpu")
        original = media.read_audio(path)
        assert ours["bytes"] == len(encoded.data)
        assert ours["kbps"] == pytest.approx(encoded.kbps)
        assert ours["estimate_kbps"] == pytest.approx(encoded.estimate_bits / 1000)
        assert ours["si_sdr_db"] == max(
            sound_metrics.si_sdr(decoded.signal[0], original.signal[0]), audio_rows.WORST_DB
        )
        assert ours["log_mel"] == sound_metrics.log_mel_distance(
            decoded.signal[0], original.signal[0], 16_000
        )
    assert rows[0]["bytes"] < rows[1]["bytes"]
    with pytest.raises(UsageError, match="small is for image, and there are no such files"):
        evaluate(paths, model=small)


def test_one_file_at_one_point(talks: Path, small_sound: str) -> None:
    original = media.read_audio(next(talks.iterdir()))
    row, encoded, decoded = evaluation.measure(original, model=small_sound, device="cpu")
    assert (row["file"], row["bytes"]) == (None, len(encoded.data))
    assert decoded.signal.shape == original.signal.shape


def test_silent_audio_has_a_row(tmp_path: Path, small_sound: str) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 16_000)
    (only,) = evaluate(tmp_path / "silence.wav", model=small_sound, device="cpu")
    assert (only["si_sdr_db"], only["log_mel"]) == (math.inf, 0)
    assert 0 < only["kbps"] < 2 and not only["estimate_kbps"]
    (mean,) = evaluation.summary([only])
    assert mean["si_sdr_db"] is None
