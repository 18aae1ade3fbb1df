from pathlib import Path

import pytest
from cli_fakes import CARD, bitstream, install, invoke, records
from vqcodec.cli import info


@pytest.fixture
def photo(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("photo.vqc").write_bytes(bitstream())
    return install(monkeypatch)


def test_text(photo):
    result = invoke("info", "photo.vqc")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "photo.vqc  bitstream 1   fake-image (weights 3f9a1c…)"
    assert lines[1] == "picture    8 x 4 RGB   from PNG"
    size = Path("photo.vqc").stat().st_size
    assert lines[2].startswith(f"size       {size} B = {8 * size / 32:.2f} bpp     header ")
    assert "icc 7 B, codes 3 B" in lines[2]
    assert lines[3] == "chunks     1 of at most 512 x 512 pixels     prior raw"
    assert len(lines) == 4


def test_json_has_every_field(photo):
    record, summary = records(invoke("info", "photo.vqc", "--json"))
    assert record["fingerprint"] == CARD["fingerprint"]
    assert (record["width"], record["height"], record["channels"], record["chunks"]) == (8, 4, 3, 1)
    assert (
        record["header_bytes"] + sum(record["box_bytes"].values()) + record["code_bytes"]
        == record["total_bytes"]
    )
    assert record["priors"] == {"raw": 1}
    assert summary == {"type": "summary", "ok": 1, "failed": 0, "skipped": 0}


def test_check_finds_damage(photo):
    data = bytearray(bitstream())
    data[-1] ^= 1
    Path("broken.vqc").write_bytes(data)
    assert invoke("info", "broken.vqc").exit_code == 0
    result = invoke("info", "--check", "photo.vqc", "broken.vqc")
    assert result.exit_code == 1
    assert "check      no damage" in result.stdout
    assert "damaged in chunk 1 of 1" in result.stdout
    assert records(invoke("info", "--check", "broken.vqc", "--json"))[0]["status"] == "damaged"


def test_cut_file_shows_its_header(photo):
    Path("cut.vqc").write_bytes(bitstream()[:-2])
    size = len(bitstream())
    assert f"truncated: {size - 2} of {size} bytes" in invoke("info", "cut.vqc").stdout


def test_errors_and_stdin(photo):
    Path("x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = invoke("info", "x.png", "gone.vqc", ".", "photo.vqc")
    assert result.exit_code == 1
    assert "x.png: not a vqcodec bitstream" in result.stderr
    assert "gone.vqc: no such file" in result.stderr
    assert ".: is a folder" in result.stderr
    assert "photo.vqc" in result.stdout
    assert "stdin" in invoke("info", "-", input=bitstream()).stdout
    assert "photo.vqc" in invoke("info", "-r", ".").stdout


def test_shipped_weights_are_recognised(photo, monkeypatch, tmp_path):
    (tmp_path / "fake-image.json").write_text('{"fingerprint": "3f9a1c0011223344"}')
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    assert info.is_shipped("fake-image", "3f9a1c0011223344")
    assert not info.is_shipped("fake-image", "0000000000000000")
    assert not info.is_shipped("other", "3f9a1c0011223344")
    assert "(weights 3f9a1c…, shipped)" in invoke("info", "photo.vqc").stdout


def test_models_table_and_card(photo):
    result = invoke("models")
    head, row = result.stdout.splitlines()
    columns = ["name", "medium", "method", "q", "bpp", "PSNR", "dB", "parameters", "file", "weights"]
    assert head.split() == columns
    assert row.split() == [
        "fake-image",
        "image",
        "VQ-VAE",
        "3",
        "0.3800",
        "28.71",
        "1234567",
        "-",
        "3f9a1c00",
    ]
    result = invoke("models", "-m", "fake-image")
    assert "config.codes" in result.stdout
    assert "vqcodec train $DATA/photos -m fake-image" in result.stdout
    assert records(invoke("models", "--json"))[0]["name"] == "fake-image"
    assert records(invoke("models", "--model", "fake-image", "--json"))[0]["config"] == {"codes": 512}
    assert invoke("models", "-m", "other").exit_code == 2
