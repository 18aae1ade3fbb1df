"""The commands on sounds, with a real, small model: nothing is faked here."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
from cli_fakes import invoke, records
from conftest import SMALL_SOUND, draw, sing
from vqcodec import media, pipeline, weights
from vqcodec.bitstream import container, header


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vqcodec.metrics.audio.installed", lambda: ())


def song(name: str, seconds: float = 1, rate: int = 16_000, channels: int = 1, **tags: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    samples = sing(seconds, rate, channels)
    with soundfile.SoundFile(name, "w", samplerate=rate, channels=channels) as file:
        for tag, text in tags.items():
            setattr(file, tag, text)
        file.write(samples)


def done(*arguments: Any, **options: Any) -> Any:
    result = invoke(*arguments, **options)
    assert result.exit_code == 0, result.stderr
    return result


def test_encode_info_decode(small_sound: str) -> None:
    song("song.wav", 1.5, 44_100, 2, title="Aria")
    original = Path("song.wav").read_bytes()
    result = done("encode", "song.wav", "-m", small_sound)
    assert result.stdout == ""
    assert "song.wav -> song.vqc" in result.stderr and "kbit/s)" in result.stderr
    assert Path("song.vqc").read_bytes() == pipeline.encode("song.wav", model=small_sound)
    shown = done("info", "song.vqc").stdout
    fingerprint = weights.read_card(small_sound).fingerprint
    assert f"small-sound (weights {fingerprint[:6]}…)" in shown
    assert "44.1 kHz stereo 0:01.5   from WAV   nothing above 8 kHz is kept" in shown
    assert "tags " in shown and "kbit/s" in shown and "segments  2 of at most 8 s     prior static" in shown
    assert done("info", "--check", "song.vqc").stdout.endswith("no damage\n")
    done("decode", "song.vqc", "-m", small_sound)
    with soundfile.SoundFile("song.decoded.wav") as file:
        assert (file.samplerate, file.channels, file.frames) == (44_100, 2, 66_150)
        assert file.title == "Aria"
        samples = file.read(dtype="float32")
    expected = pipeline.decode("song.vqc", model=small_sound).samples
    assert np.abs(samples - expected).max() <= 1 / 32767
    assert Path("song.wav").read_bytes() == original, "the source is left alone"


def test_json_and_verify(small_sound: str) -> None:
    song("song.flac", 0.5, 22_050)
    encoded = pipeline.encode_file("song.flac", pipeline.EncodeOptions(model=small_sound))
    found, _ = records(done("encode", "song.flac", "-m", small_sound, "--verify", "--json"))
    assert "decode" in found.pop("warnings")[0], "it was trained for a few steps"
    assert found | {"seconds": 0} == {
        "type": "file",
        "input": "song.flac",
        "output": "song.vqc",
        "status": "ok",
        "seconds": 0,
        "model": "small-sound",
        "quality": 3,
        "audio_seconds": 0.5,
        "rate": 22_050,
        "channels": 1,
        "bytes_out": len(encoded.data),
        "bytes_in": Path("song.flac").stat().st_size,
        "kbps": round(encoded.kbps, 4),
        "si_sdr_db": round(pipeline.verify(encoded), 3),
    }
    soundfile.write("one.wav", np.array([0.0]), 16_000)
    assert (
        "verified, the same up to a factor" in done("encode", "one.wav", "-m", small_sound, "--verify").stderr
    )
    found, _ = records(done("decode", "song.vqc", "-m", small_sound, "--json", "--format", "flac", "-f"))
    assert (found["output"], found["audio_seconds"], found["rate"]) == ("song.decoded.flac", 0.5, 22_050)
    found, _ = records(done("info", "song.vqc", "--json"))
    assert (found["kind"], found["frames"], len(found["gains"])) == ("audio", 11_025, 2)
    assert found["kbps"] == round(encoded.kbps, 4)


def test_standard_streams(small_sound: str) -> None:
    song("song.wav", 0.5)
    data = done("encode", "-", "-m", small_sound, input=Path("song.wav").read_bytes()).stdout_bytes
    assert data == pipeline.encode("song.wav", model=small_sound)
    sound = done("decode", "-", "-m", small_sound, input=data).stdout_bytes
    assert soundfile.info(io.BytesIO(sound)).frames == 8000
    sound = done("decode", "-", "-m", small_sound, "--format", "opus", input=data).stdout_bytes
    assert soundfile.info(io.BytesIO(sound)).subtype == "OPUS"


def test_options(small_sound: str, small: str) -> None:
    song("song.wav", 1, artist="A" * 40)
    done("encode", "song.wav", "-m", small_sound)
    plain = Path("song.vqc").stat().st_size
    assert set(container.read_info(Path("song.vqc").read_bytes()).box_bytes) == {"tags"}
    done("encode", "song.wav", "-m", small_sound, "-f", "--strip", "tags")
    assert Path("song.vqc").stat().st_size < plain
    done("encode", "song.wav", "-m", small_sound, "-f", "--effort", 2)
    assert Path("song.vqc").read_bytes() == pipeline.encode("song.wav", model=small_sound, effort=2)
    for goal in (["--bitrate", 50], ["--target-size", "10kB"], ["-q", 3], ["--fast"]):
        done("encode", "song.wav", "-m", small_sound, "-f", *goal)
        assert Path("song.vqc").stat().st_size == plain
    for options, code, message in (
        (["-m", small_sound, "--bitrate", "0.1"], 1, "smallest is "),
        (["-m", small_sound, "--bpp", "1"], 2, "bpp does not apply to audio"),
        (["-m", small_sound, "--psnr", "30"], 2, "psnr does not apply to audio"),
        (["-m", small], 2, "small is for "),
    ):
        result = invoke("encode", "song.wav", "-f", *options)
        assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    result = invoke("decode", "song.vqc", "-m", small_sound, "--max-seconds", "0.5s")
    assert (result.exit_code, "header claims 1 channels of 16,000 samples" in result.stderr) == (1, True)
    assert "--max-seconds" in result.stderr
    done("decode", "song.vqc", "-m", small_sound, "--max-seconds", "1s", "--strip", "tags")
    with soundfile.SoundFile("song.decoded.wav") as file:
        assert file.artist == ""


def test_damage(small_sound: str) -> None:
    song("long.wav", 9)
    done("encode", "long.wav", "-m", small_sound)
    whole = pipeline.decode("long.vqc", model=small_sound).signal[0]
    data = bytearray(Path("long.vqc").read_bytes())
    head, at = header.read_header(bytes(data))
    data[at + head.chunks[0].size + 2] ^= 1
    Path("long.vqc").write_bytes(data)
    result = invoke("decode", "--test", "long.vqc", "-m", small_sound)
    assert result.exit_code == 1
    assert "vqcodec: long.vqc: damaged in chunk 2 of 2\n  hint: " in result.stderr
    result = invoke("decode", "--salvage", "long.vqc", "-m", small_sound)
    assert result.exit_code == 1
    rescued = media.read_audio("long.decoded.wav").signal[0]
    assert len(rescued) == len(whole)
    assert not rescued[8 * 16_000 :].any()
    assert np.abs(rescued[: 7 * 16_000] - whole[: 7 * 16_000]).max() <= 1 / 32767


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half.wav", "truncated: "),
        ("nan.wav", "NaN samples"),
        ("none.wav", "no samples"),
        ("empty.wav", "empty file"),
        ("text.wav", "not an image or audio file that this build can read"),
        ("head.flac", "damaged FLAC, or of a kind this build cannot read"),
        ("slow.wav", "1,000 samples a second"),
        ("gone.wav", "no such file"),
    ],
)
def test_bad_inputs_fail_alone(small_sound: str, name: str, message: str) -> None:
    song("good.wav", 0.2)
    song("whole.wav", 0.5)
    Path("half.wav").write_bytes(Path("whole.wav").read_bytes()[:8000])
    soundfile.write("nan.wav", np.full(100, np.nan), 16_000, "FLOAT")
    soundfile.write("none.wav", np.zeros(0), 16_000)
    soundfile.write("slow.wav", np.zeros(100), 1_000)
    Path("empty.wav").touch()
    Path("text.wav").write_text("It is no sound.\n" * 20)
    Path("head.flac").write_bytes(b"fLaC" + bytes(10))
    result = invoke("encode", name, "good.wav", "-m", small_sound)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"vqcodec: {name}: {message}"), result.stderr
    assert Path("good.vqc").exists()
    assert not Path(name).with_suffix(".vqc").exists()


def test_both_media_in_one_call(small: str, small_sound: str) -> None:
    song("in/song.wav", 0.3)
    PIL.Image.fromarray(draw(40, 30)).save("in/photo.png")
    Path("in/notes.txt").write_text("notes")
    result = invoke("encode", "in", "-r", "-o", "packed/", "-m", small_sound)
    assert result.exit_code == 1
    assert "in/photo.png: small-sound is for " in result.stderr
    assert "in/notes.txt: skipped, not an image or audio file" in result.stderr
    done("encode", "in/photo.png", "-m", small, "-o", "packed/")
    result = invoke("decode", "packed", "-r", "-o", "out/", "-m", small_sound)
    assert "packed/photo.vqc: needs model small (" in result.stderr
    assert [path.name for path in Path("out").iterdir()] == ["song.decoded.wav"]
    done("decode", "packed/photo.vqc", "-o", "out/", "-m", small)
    assert sorted(path.name for path in Path("out").iterdir()) == ["photo.decoded.png", "song.decoded.wav"]


def test_evaluate(small_sound: str) -> None:
    song("talks/a.wav", 1)
    song("talks/b.flac", 0.5, 44_100, 2)
    result = done(
        *("evaluate", "talks", "-m", small_sound, "--against", "opus", "-o", "rows.csv"),
        *("--save-decoded", "kept", "-v", "--device", "cpu"),
    )
    assert "log-mel" in result.stdout and "opus" in result.stdout and "estimate" in result.stdout
    with open("rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["codec"], row["q"]) for row in rows] == [("small-sound", "3.0"), ("opus", "6.0")] * 2
    for row in rows[::2]:
        encoded = pipeline.encode_file(row["file"], pipeline.EncodeOptions(model=small_sound))
        assert int(row["bytes"]) == len(encoded.data)
        assert float(row["kbps"]) == pytest.approx(encoded.kbps)
        if encoded.original.channels == 1:
            assert float(row["si_sdr_db"]) == pytest.approx(max(pipeline.verify(encoded), -60), abs=1e-6)
        kept = media.read_audio(f"kept/{Path(row['file']).stem}.small-sound.q3.wav")
        assert kept.frames == encoded.original.frames
    kinds = [r["type"] for r in records(done("evaluate", "talks", "-m", small_sound, "--json"))]
    assert kinds == ["row", "row", "mean", "summary"]
    assert invoke("evaluate", "talks", "-m", small_sound, "--against", "opus:1").exit_code == 2
    Path("talks/c.wav").write_bytes(Path("talks/a.wav").read_bytes()[:999])
    result = invoke("evaluate", "talks", "-m", small_sound)
    assert (result.exit_code, "talks/c.wav: truncated: " in result.stderr) == (1, True)


def test_train_then_encode(talks: Path) -> None:
    settings = [word for key, value in SMALL_SOUND.items() for word in ("--set", f"{key}={value}")]
    result = done(
        *("train", talks, "-m", "vqvae-audio", "-o", "runs/mine", "--steps", 2, "--batch", 2),
        *("--crop", 0.2, "--device", "cpu", *settings),
    )
    assert "runs/mine/best.safetensors" in result.stderr
    assert "log mel" in result.stderr and "kbps" in result.stderr
    config = json.loads(Path("runs/mine/config.json").read_text())
    assert config["settings"]["crop"] == 0.2
    shown = done("models", "-m", "runs/mine/best.safetensors").stdout
    assert "measured.validation.kbps" in shown and "measured.validation.log_mel" in shown
    song("song.wav", 0.2)
    done("encode", "song.wav", "-m", "runs/mine/best.safetensors", "--verify")
    result = invoke("train", talks, "-m", "vqvae-audio", "--crop", "600")
    assert (result.exit_code, "crop is 600" in result.stderr) == (2, True)
