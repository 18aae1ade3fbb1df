from pathlib import Path

import pytest
from cli_fakes import CARD, SOUND_CARD, bitstream, install, invoke, records, sound_bitstream
from vqcodec.bitstream import container
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
    assert lines[1] == "image      8 x 4 RGB   from PNG"
    size = Path("photo.vqc").stat().st_size
    assert lines[2].startswith(f"size       {size} B = {8 * size / 32:.2f} bpp     header ")
    assert "icc 7 B, codes 3 B" in lines[2]
    assert lines[3] == "chunks     1 of at most 512 x 512 pixels     prior raw 12.00 bits per code"
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("first", "name"), [(container.WEBP, "WebP"), (container.LEARNED_PIXELS, "lossless-image")]
)
def test_stored_pixels_have_a_name(photo, first, name):
    chunk = container.Chunk(container.PIXELS, b"")
    data = bitstream(chunks=[chunk], tiles=[container.Part(bytes([first]) + bytes(95))])
    Path("stored.vqc").write_bytes(data)
    lines = invoke("info", "stored.vqc").stdout.splitlines()
    said = f"codes 0 B, stored pixels 96 B (1 tile of {name}, 24.00 bits per pixel)"
    assert lines[2].endswith(said) and lines[3].endswith("prior pixels")
    record, _ = records(invoke("info", "stored.vqc", "--json"))
    assert (record["tiles"], record["tile_bytes"]) == ({name: 1}, {name: 96})


def test_json_has_every_field(photo):
    record, summary = records(invoke("info", "photo.vqc", "--json"))
    assert record["fingerprint"] == CARD["fingerprint"]
    assert (record["width"], record["height"], record["channels"], record["chunks"]) == (8, 4, 3, 1)
    assert (record["kind"], record["stride"], "kbps" in record) == ("image", 4, False)
    assert record["bpp"] == 8 * record["total_bytes"] / 32
    assert (
        record["header_bytes"] + sum(record["box_bytes"].values())
        == record["total_bytes"] - record["code_bytes"] - record["stored_bytes"]
    )
    assert record["priors"] == {"raw": 1}
    assert summary == {"type": "summary", "ok": 1, "failed": 0, "skipped": 0}


def test_text_of_a_sound(photo):
    Path("song.vqc").write_bytes(sound_bitstream())
    result = invoke("info", "song.vqc")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "song.vqc  bitstream 1   fake-audio (weights 3f9a1c…)"
    assert lines[1] == (
        "audio     44.1 kHz stereo, 1 of them silent 0:02.0   from WAV   nothing above 8 kHz is kept"
    )
    size = Path("song.vqc").stat().st_size
    assert lines[2].startswith(f"size      {size} B = {8 * size / 2000:.2f} kbit/s     header ")
    assert "tags 13 B, codes 3 B" in lines[2]
    assert lines[3] == "segments  1 of at most 8 s     prior raw 0.05 bits per code"
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("geometry", "line"),
    [
        (container.AudioGeometry(16_000, 16_000), "audio     16 kHz mono 0:01.0   from WAV"),
        (container.AudioGeometry(8_000 * 3723, 8_000), "audio     8 kHz mono 1:02:03.0   from WAV"),
        (
            container.AudioGeometry(1, 22_050, b"\0\0\0"),
            "audio     22.05 kHz 3 channels, silent 0:00.0   from WAV   ",
        ),
    ],
)
def test_lengths_and_channels(photo, geometry, line):
    chunks = [container.Chunk(container.STATIC, b"x")] * geometry.chunk_count
    Path("s.vqc").write_bytes(sound_bitstream(geometry=geometry, chunks=chunks))
    lines = invoke("info", "s.vqc").stdout.splitlines()
    assert lines[1].startswith(line)
    assert ("8 kHz is kept" in lines[1]) == (geometry.rate > 16_000)
    bits = 8 * len(chunks) / geometry.grid(64)[1]
    prior = f"static {bits:.2f} bits per code" if chunks else "none"
    assert lines[3] == f"segments  {geometry.chunk_count} of at most 8 s     prior {prior}"


def test_json_of_a_sound(photo):
    Path("song.vqc").write_bytes(sound_bitstream())
    record, _ = records(invoke("info", "song.vqc", "--check", "--json"))
    size = Path("song.vqc").stat().st_size
    found = {key: record[key] for key in ("kind", "frames", "rate", "channels", "audio_seconds", "gains")}
    assert found == {
        "kind": "audio",
        "frames": 88_200,
        "rate": 44_100,
        "channels": 2,
        "audio_seconds": 2.0,
        "gains": "c800",
    }
    assert (record["mid_side"], record["stride"]) == (False, 64)
    assert record["kbps"] == round(8 * size / 2000, 4)
    assert "bpp" not in record and "geometry" not in record


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
    assert info.shipped_card("fake-image", "3f9a1c0011223344")
    assert not info.shipped_card("fake-image", "0000000000000000")
    assert not info.shipped_card("other", "3f9a1c0011223344")
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


def test_rates_are_those_with_the_learned_prior(photo):
    photo.cards = [CARD | {"learned": {"measured": {"validation": {"bpp": 0.29, "bits": 4.6}}}}]
    assert invoke("models").stdout.splitlines()[1].split()[4:6] == ["0.2900", "28.71"]


def test_models_of_both_media_have_their_own_figures(photo):
    photo.cards = [SOUND_CARD, CARD]
    head, sound, picture = invoke("models").stdout.splitlines()
    assert head.split()[3:9] == ["q", "bpp", "PSNR", "dB", "kbit/s", "log-mel"]
    assert sound.split()[4:8] == ["-", "-", "2.0400", "0.4100"]
    assert picture.split()[4:8] == ["0.3800", "28.71", "-", "-"]
    photo.cards = [SOUND_CARD]
    assert "bpp" not in invoke("models").stdout
