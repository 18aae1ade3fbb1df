"""The commands with a real, small model on small images: nothing is faked here."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from cli_fakes import done, invoke, records
from conftest import draw, photo
from vqcodec import media, pipeline, weights
from vqcodec.bitstream import container, header
from vqcodec.evaluation.image import COLUMNS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def damage(name: str, chunk: int) -> None:
    data = bytearray(Path(name).read_bytes())
    head, at = header.read_header(bytes(data))
    at += sum(box.size for box in head.boxes) + sum(entry.size for entry in head.chunks[:chunk])
    data[at + 2] ^= 1
    Path(name).write_bytes(data)


def test_encode_info_decode(small: str) -> None:
    pixels = photo("photo.png")
    result = done("encode", "photo.png", "-m", small)
    assert result.stdout == ""
    assert "photo.png -> photo.vqc" in result.stderr
    assert Path("photo.vqc").read_bytes() == pipeline.encode("photo.png", model=small)
    shown = done("info", "photo.vqc").stdout
    fingerprint = weights.read_card(small).fingerprint
    assert f"small (weights {fingerprint[:6]}…)" in shown
    assert "40 x 30 RGB   from PNG" in shown
    assert done("info", "--check", "photo.vqc").stdout.endswith("no damage\n")
    done("decode", "photo.vqc", "-m", small)
    decoded = media.read_image("photo.decoded.png").samples
    assert np.array_equal(decoded, pipeline.decode("photo.vqc", model=small).samples)
    assert np.square(decoded.astype(float) - pixels).mean() < 2000
    assert np.array_equal(media.read_image("photo.png").samples, pixels), "the source is left alone"
    assert Path("photo.decoded.png").stat().st_mtime == pytest.approx(Path("photo.vqc").stat().st_mtime)


def test_decode_without_the_model(small: str) -> None:
    photo("photo.png")
    done("encode", "photo.png", "-m", small)
    result = invoke("decode", "photo.vqc")
    fingerprint = weights.read_card(small).fingerprint
    assert result.exit_code == 1
    message, hint = result.stderr.splitlines()[:2]
    assert message == f"vqcodec: photo.vqc: needs model small ({fingerprint})"
    assert hint.startswith("  hint: ") and "-m" in hint
    assert not Path("photo.decoded.png").exists()


def test_standard_streams(small: str) -> None:
    photo("photo.png")
    data = done("encode", "-", "-m", small, input=Path("photo.png").read_bytes()).stdout_bytes
    assert data == pipeline.encode("photo.png", model=small)
    picture = done("decode", "-", "-m", small, "--format", "bmp", input=data).stdout_bytes
    assert np.array_equal(media.read_image(picture).samples, pipeline.decode(data, model=small).samples)


def test_verify_and_json(small: str) -> None:
    photo("photo.png")
    result = done("encode", "photo.png", "-m", small, "--verify")
    encoded = pipeline.encode_file("photo.png", pipeline.EncodeOptions(model=small))
    assert f"verified, {pipeline.verify(encoded):.2f} dB" in result.stderr
    found, summary = records(done("encode", "photo.png", "-m", small, "--verify", "--json", "-f"))
    size = len(encoded.data)
    assert found | {"seconds": 0} == {
        "type": "file",
        "input": "photo.png",
        "output": "photo.vqc",
        "status": "ok",
        "seconds": 0,
        "model": "small",
        "quality": 3,
        "width": 40,
        "height": 30,
        "bytes_out": size,
        "bytes_in": Path("photo.png").stat().st_size,
        "bpp": round(8 * size / 1200, 4),
        "psnr_db": round(pipeline.verify(encoded), 3),
    }
    assert (summary["ok"], summary["failed"], summary["bytes_out"]) == (1, 0, size)
    found, _ = records(done("decode", "photo.vqc", "-m", small, "--json"))
    assert (found["output"], found["width"], found["bytes_in"]) == ("photo.decoded.png", 40, size)
    found, _ = records(done("info", "photo.vqc", "--json"))
    assert (found["model"], found["priors"], found["total_bytes"]) == ("small", {"static": 1}, size)


def test_the_options_of_encode_do_what_they_say(small: str) -> None:
    exif = PIL.Image.Exif()
    exif[271] = "Leica"
    PIL.Image.fromarray(draw(60, 40)).save("photo.jpg", exif=exif.tobytes())

    def size(*options: Any) -> int:
        done("encode", "photo.jpg", "-m", small, "-f", *options)
        return Path("photo.vqc").stat().st_size

    plain = size()
    assert set(container.read_info(Path("photo.vqc").read_bytes()).box_bytes) == {"exif"}
    assert size("--strip", "all") < plain
    assert container.read_info(Path("photo.vqc").read_bytes()).box_bytes == {}
    assert size("-q", 3) == size("--fast") == size("--target-size", plain) == size("--bpp", 6) == plain
    done("encode", "photo.jpg", "-m", small, "-f", "--effort", 3)
    assert Path("photo.vqc").read_bytes() == pipeline.encode("photo.jpg", model=small, effort=3)
    for options, message in (
        (["--target-size", "40"], "smallest is "),
        (["--bpp", "0.01"], "smallest is "),
        (["--max-pixels", "2399"], "megapixels, limit "),
    ):
        result = invoke("encode", "photo.jpg", "-m", small, "-f", *options)
        assert result.exit_code == 1
        assert result.stderr.startswith("vqcodec: photo.jpg: ")
        assert message in result.stderr.splitlines()[0]
    result = invoke("encode", "photo.jpg", "-m", small, "-f", "--device", "cuda:77")
    assert (result.exit_code, "no CUDA device" in result.stderr) == (2, True)
    told = done("encode", "photo.jpg", "-m", small, "-f", "-q", "4").stderr
    assert told.startswith("warning: small has one quality, 3, which is used\n")


def test_folders(small: str) -> None:
    pictures = {name: photo(f"in/{name}.png", seed=n) for n, name in enumerate(["a", "b", "deep/c"])}
    Path("in/notes.txt").write_text("notes")
    Path("in/broken.png").write_bytes(Path("in/a.png").read_bytes()[:300])
    result = invoke("encode", "in", "-r", "-o", "packed/", "-m", small)
    assert result.exit_code == 1
    assert "in/broken.png: truncated PNG" in result.stderr
    assert "in/notes.txt: skipped, not an image or audio file" in result.stderr
    assert "3 of 5 files, 1 failed, 1 skipped" in result.stderr
    found = sorted(str(path.relative_to("packed")) for path in Path("packed").rglob("*.*"))
    assert found == ["a.vqc", "b.vqc", "deep/c.vqc"]
    done("decode", "packed", "-r", "-o", "out/", "-m", small, "--format", "webp")
    for name, pixels in pictures.items():
        decoded = media.read_image(f"out/{name}.decoded.webp").samples
        assert np.array_equal(decoded, pipeline.decode(f"packed/{name}.vqc", model=small).samples)
        assert decoded.shape == pixels.shape


def test_damaged_files(small: str) -> None:
    photo("wide.png", 530, 12)
    photo("good.png", seed=3)
    done("encode", "wide.png", "good.png", "-m", small)
    done("decode", "--test", "wide.vqc", "good.vqc", "-m", small)
    whole = pipeline.decode("wide.vqc", model=small).samples
    damage("wide.vqc", 1)
    result = invoke("decode", "-t", "wide.vqc", "good.vqc", "-m", small)
    assert result.exit_code == 1
    assert "vqcodec: wide.vqc: damaged in chunk 2 of 2\n  hint: " in result.stderr
    assert "1 of 2 files, 1 failed" in result.stderr
    assert list(Path().glob("*.decoded.*")) == []
    assert invoke("info", "--check", "wide.vqc").exit_code == 1
    assert invoke("decode", "wide.vqc", "-m", small).exit_code == 1
    assert not Path("wide.decoded.png").exists()
    result = invoke("decode", "--salvage", "wide.vqc", "-m", small)
    assert result.exit_code == 1
    assert "damaged in chunk 2 of 2" in result.stderr
    rescued = media.read_image("wide.decoded.png").samples
    assert rescued.shape == whole.shape
    halo = 4 * weights.load(small).halo
    assert np.array_equal(rescued[:, : 512 - halo], whole[:, : 512 - halo])


def test_foreign_and_hostile_inputs(small: str) -> None:
    photo("photo.png")
    shutil.copy("photo.png", "photo.vqc")
    Path("fake.pt").write_bytes(b"\x80\x04N.")
    result = invoke("decode", "photo.vqc", "-m", small)
    assert result.exit_code == 1
    assert "not a vqcodec bitstream (starts with 89 50 4e 47: a PNG)" in result.stderr
    for command in ("encode", "decode", "evaluate", "models"):
        files = {"decode": ["photo.vqc"], "models": []}.get(command, ["photo.png"])
        result = invoke(
            command, *files, "-m", "fake.pt", *([] if command == "models" else ["--device", "cpu"])
        )
        assert result.exit_code == 2, command
        assert "not a safetensors file" in result.stderr
        result = invoke(command, *files, "-m", "no-such-model")
        assert (result.exit_code, "no model 'no-such-model'" in result.stderr) == (2, True), command


def test_evaluate(small: str) -> None:
    for number in range(2):
        photo(f"set/{number}.png", 200, 180, number)
    result = done(
        *("evaluate", "set", "-m", small, "--against", "jpeg,webp", "-o", "rows.csv", "--plot", "rates.png"),
        *("--save-decoded", "kept", "-v", "--effort", 0),
    )
    assert "MS-SSIM" in result.stdout and "jpeg" in result.stdout and "estimate" in result.stdout
    with open("rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["codec"] for row in rows] == ["small", "jpeg", "webp"] * 2
    for row in rows[::3]:
        encoded = pipeline.encode_file(row["file"], pipeline.EncodeOptions(model=small, effort=0))
        assert int(row["bytes"]) == len(encoded.data)
        assert float(row["bpp"]) == pytest.approx(encoded.bpp)
        assert float(row["psnr_db"]) == pytest.approx(pipeline.verify(encoded))
        assert 0.1 < float(row["ms_ssim"]) < 1
        assert float(row["estimate_bpp"]) == pytest.approx(encoded.estimate_bits / (200 * 180))
        kept = media.read_image(f"kept/{Path(row['file']).stem}.small.q3.png").samples
        assert np.array_equal(kept, pipeline.decode(encoded.data, model=small).samples)
    assert all(row["same_bytes_as"].startswith("small") for row in rows if row["codec"] != "small")
    with PIL.Image.open("rates.png") as plot:
        assert plot.width > 400
    done("evaluate", "set/0.png", "-m", small, "-q", 3, "-o", "rows.json")
    (row,) = json.loads(Path("rows.json").read_text())
    assert row["bytes"] == len(pipeline.encode("set/0.png", model=small))
    assert invoke("evaluate", "set", "-m", small, "-o", "rows.json").exit_code == 1, "it exists"
    assert invoke("evaluate", "set", "-m", small, "--against", "flif").exit_code == 2
    kinds = [record["type"] for record in records(done("evaluate", "set", "-m", small, "--json"))]
    assert kinds == ["row", "row", "mean", "summary"]


def test_models(small: str) -> None:
    card = weights.read_json(small)
    shown = done("models", "-m", small).stdout
    assert card["fingerprint"] in shown
    assert "vqcodec train $DATA/" in shown
    (record,) = records(done("models", "-m", small, "--json"))
    assert {key: record[key] for key in card} == card
    assert record["bytes"] == Path(small).stat().st_size
