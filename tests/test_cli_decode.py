import io
import os
import threading
from pathlib import Path

import pytest
import soundfile
from cli_fakes import bitstream, install, invoke, records, sound_bitstream
from PIL import Image
from vqcodec.errors import ModelError


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("photo.vqc").write_bytes(bitstream())
    return install(monkeypatch)


def damaged():
    data = bytearray(bitstream())
    data[-1] ^= 1
    return bytes(data)


def test_the_original_is_never_hit(fakes):
    os.utime("photo.vqc", (1_000_000_000, 1_000_000_000))
    result = invoke("decode", "photo.vqc")
    assert result.exit_code == 0, result.stderr
    assert "photo.vqc -> photo.decoded.png" in result.stderr
    with Image.open("photo.decoded.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (8, 4))
    assert Path("photo.decoded.png").stat().st_mtime == 1_000_000_000
    assert invoke("decode", "photo.vqc").exit_code == 1
    assert invoke("decode", "photo.vqc", "-f", "--no-mtime").exit_code == 0
    assert Path("photo.decoded.png").stat().st_mtime > 1_500_000_000


@pytest.mark.parametrize(
    ("arguments", "name", "format"),
    [
        (["--format", "webp"], "photo.decoded.webp", "WEBP"),
        (["-o", "x.jpeg"], "x.jpeg", "JPEG"),
        (["-o", "x.tif"], "x.tif", "TIFF"),
        (["-o", "x.png", "--format", "jpg"], "x.png", "JPEG"),
        (["--output", "new/", "--format", "bmp"], "new/photo.decoded.bmp", "BMP"),
    ],
)
def test_formats(fakes, arguments, name, format):
    result = invoke("decode", "photo.vqc", *arguments)
    assert result.exit_code == 0, result.stderr
    with Image.open(name) as picture:
        assert picture.format == format


def test_unknown_suffix(fakes):
    result = invoke("decode", "photo.vqc", "-o", "x.gifv")
    assert result.exit_code == 2
    assert "x.gifv: no output format has this suffix\n  hint: choose one with --format: png" in result.stderr
    assert invoke("decode", "photo.vqc", "--format", "gifv").exit_code == 2


def test_options_reach_the_api(fakes):
    Path("w.safetensors").write_bytes(b"weights")
    result = invoke(
        *("decode", "photo.vqc", "-m", "w.safetensors", "--salvage", "--max-pixels", "1000"),
        *("--max-seconds", "1h30m", "--decoder", "wavenet", "--preview", "--levels", "2"),
        *("--strip", "all", "--device", "cpu", "-j", "1", "--no-progress"),
    )
    assert result.exit_code == 0, result.stderr
    assert fakes.named("load") == [{"model": "w.safetensors", "device": "cpu"}]
    (call,) = fakes.named("decode")
    assert call.pop("data") == bitstream()
    assert call == {
        "model": "w.safetensors",
        "decoder": "wavenet",
        "salvage": True,
        "preview": True,
        "levels": 2,
        "max_pixels": 1000,
        "max_seconds": 5400.0,
        "strip": ("all",),
        "device": "cpu",
    }


def test_json(fakes):
    done, summary = records(invoke("decode", "photo.vqc", "--json"))
    assert done["output"] == "photo.decoded.png"
    assert (done["model"], done["width"], done["height"]) == ("fake-image", 8, 4)
    assert done["bytes_out"] == Path("photo.decoded.png").stat().st_size
    assert summary["ok"] == 1


def test_damage_is_refused_or_salvaged_with_exit_code_1(fakes):
    Path("broken.vqc").write_bytes(damaged())
    result = invoke("decode", "broken.vqc", "photo.vqc")
    assert result.exit_code == 1
    assert "vqcodec: broken.vqc: damaged in chunk 1 of 1\n  hint: " in result.stderr
    assert not Path("broken.decoded.png").exists()
    assert Path("photo.decoded.png").exists()

    result = invoke("decode", "broken.vqc", "--salvage", "--json")
    assert result.exit_code == 1
    assert Path("broken.decoded.png").exists()
    assert records(result)[0]["status"] == "damaged"
    assert "warning: broken.vqc: damaged in chunk 1 of 1" in result.stderr
    assert invoke("decode", "photo.vqc", "--salvage", "-f").exit_code == 0


def test_test_writes_nothing(fakes):
    Path("broken.vqc").write_bytes(damaged())
    assert invoke("decode", "-t", "photo.vqc").exit_code == 0
    assert invoke("decode", "--test", "photo.vqc", "broken.vqc").exit_code == 1
    assert sorted(os.listdir()) == ["broken.vqc", "photo.vqc"]


def test_foreign_file_is_told_before_any_network(fakes):
    Path("x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    result = invoke("decode", "x.png")
    assert result.exit_code == 1
    assert "not a vqcodec bitstream (starts with 89 50 4e 47: a PNG)\n  hint: " in result.stderr
    assert fakes.calls == []


def test_missing_weights_fail_the_file(fakes):
    fakes.raises["decode"] = ModelError("needs model X (3f9a1c0011223344)", "-m FILE")
    result = invoke("decode", "photo.vqc")
    assert (result.exit_code, "needs model X" in result.stderr) == (1, True)
    assert invoke("decode", "photo.vqc", "-m", "gone.safetensors").exit_code == 2


def test_folder_tree(fakes):
    Path("packed/deep").mkdir(parents=True)
    Path("packed/deep/one.vqc").write_bytes(bitstream())
    Path("packed/readme").write_text("hello")
    result = invoke("decode", "packed/", "-r", "-o", "out/")
    assert result.exit_code == 0
    assert Path("out/deep/one.decoded.png").exists()
    assert "packed/readme: skipped, not a bitstream" in result.stderr
    result = invoke("decode", "packed/", "-r", "-o", "out/", "--skip-existing", "--json")
    told = [(r.get("input"), r.get("reason"), r.get("skipped")) for r in records(result)]
    assert sorted(told, key=str) == [
        ("packed/deep/one.vqc", None, None),
        ("packed/readme", "not a bitstream", None),
        (None, None, 2),
    ]
    assert result.exit_code == 0


def test_stdin_and_stdout(fakes):
    result = invoke("decode", "-", input=bitstream())
    with Image.open(io.BytesIO(result.stdout_bytes)) as picture:
        assert picture.format == "PNG"
    result = invoke("decode", "photo.vqc", "-o", "-", "--format", "tiff")
    with Image.open(io.BytesIO(result.stdout_bytes)) as picture:
        assert picture.format == "TIFF"


def test_dry_run(fakes):
    result = invoke("decode", "photo.vqc", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "photo.vqc -> photo.decoded.png\n")
    assert not Path("photo.decoded.png").exists()


def test_output_equal_to_input(fakes):
    result = invoke("decode", "photo.vqc", "-o", "photo.vqc", "-f", "--format", "png")
    assert (result.exit_code, "would overwrite its own input" in result.stderr) == (2, True)


@pytest.fixture
def song(fakes):
    Path("song.vqc").write_bytes(sound_bitstream())
    return fakes


def test_the_header_names_the_output(song):
    os.utime("song.vqc", (1_000_000_000, 1_000_000_000))
    result = invoke("decode", "photo.vqc", "song.vqc")
    assert result.exit_code == 0, result.stderr
    assert sorted(os.listdir()) == ["photo.decoded.png", "photo.vqc", "song.decoded.wav", "song.vqc"]
    found = soundfile.info("song.decoded.wav")
    assert (found.format, found.subtype, found.channels) == ("WAV", "PCM_16", 2)
    assert (found.frames, found.samplerate) == (88_200, 44_100)
    assert Path("song.decoded.wav").stat().st_mtime == 1_000_000_000
    assert "max_seconds" not in song.named("decode")[0]


def test_json_of_a_sound(song):
    done, _ = records(invoke("decode", "song.vqc", "--json", "--strip", "tags"))
    assert (done["output"], done["audio_seconds"], done["rate"]) == ("song.decoded.wav", 2.0, 44_100)
    assert (done["channels"], done["bytes_out"]) == (2, Path("song.decoded.wav").stat().st_size)
    assert "width" not in done
    with soundfile.SoundFile("song.decoded.wav") as file:
        assert file.title == ""
    invoke("decode", "song.vqc", "-f")
    with soundfile.SoundFile("song.decoded.wav") as file:
        assert file.title == "T"
    assert "song.vqc  0:02.0" in invoke("decode", "--test", "song.vqc").stderr


@pytest.mark.parametrize(
    ("arguments", "name", "format"),
    [
        (["--format", "flac"], "song.decoded.flac", "FLAC"),
        (["--format", "mp3"], "song.decoded.mp3", "MP3"),
        (["--format", "aiff"], "song.decoded.aiff", "AIFF"),
        (["-o", "x.aif"], "x.aif", "AIFF"),
        (["-o", "x.oga"], "x.oga", "OGG"),
        (["-o", "x", "--format", "ogg"], "x", "OGG"),
        (["-o", "new/"], "new/song.decoded.wav", "WAV"),
    ],
)
def test_sound_formats(song, arguments, name, format):
    result = invoke("decode", "song.vqc", *arguments)
    assert result.exit_code == 0, result.stderr
    assert soundfile.info(name).format == format


def test_a_format_that_cannot_hold_the_sound(song):
    result = invoke("decode", "song.vqc", "--format", "opus")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "vqcodec: song.vqc: Opus has no 44,100 samples a second\n  hint: write it as WAV with --format wav"
    )
    assert song.calls == [], "nothing is decoded in vain"
    assert sorted(os.listdir()) == ["photo.vqc", "song.vqc"]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (
            ["photo.vqc", "--format", "mp3"],
            "photo.vqc: mp3 is an audio format, the content is an image",
            "png",
        ),
        (["song.vqc", "--format", "png"], "song.vqc: png is an image format, the content is audio", "wav"),
        (["song.vqc", "-o", "x.jpg"], "song.vqc: jpg is an image format, the content is audio", "wav"),
    ],
)
def test_a_format_of_the_other_medium(song, arguments, message, hint):
    for extra in ([], ["--dry-run"]):
        result = invoke("decode", *arguments, *extra)
        assert (result.exit_code, result.stderr) == (
            1,
            f"vqcodec: {message}\n  hint: choose another format, such as --format {hint}\n",
        )
    assert song.calls == []
    assert sorted(os.listdir()) == ["photo.vqc", "song.vqc"]


def test_a_format_that_fits_some(song):
    result = invoke("decode", "photo.vqc", "song.vqc", "--format", "flac")
    assert result.exit_code == 1
    assert "photo.vqc: flac is an audio format" in result.stderr
    assert Path("song.decoded.flac").exists()


def test_sounds_from_stdin_to_stdout(song):
    for arguments in (["-"], ["-", "-o", "-"]):
        result = invoke("decode", *arguments, input=sound_bitstream())
        samples, rate = soundfile.read(io.BytesIO(result.stdout_bytes))
        assert (samples.shape, rate) == ((88_200, 2), 44_100)
    result = invoke("decode", "song.vqc", "-o", "-", "--format", "flac")
    assert result.stdout_bytes.startswith(b"fLaC")
    assert soundfile.info(io.BytesIO(result.stdout_bytes)).frames == 88_200
    result = invoke("decode", "-", "-o", "new/", input=sound_bitstream())
    assert (result.exit_code, os.listdir("new")) == (0, ["stdin.decoded.wav"])


def test_a_sound_into_a_pipe(song):
    os.mkfifo("pipe.wav")
    got = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe.wav").read_bytes()))
    reader.start()
    result = invoke("decode", "song.vqc", "-o", "pipe.wav")
    reader.join(10)
    assert result.exit_code == 0, result.stderr
    assert soundfile.info(io.BytesIO(got[0])).frames == 88_200


def test_what_cannot_be_read_fails_with_its_own_message(song):
    Path("broken.vqc").write_bytes(sound_bitstream()[:20])
    result = invoke("decode", "broken.vqc", "song.vqc")
    assert result.exit_code == 1
    assert "vqcodec: broken.vqc: truncated" in result.stderr
    assert Path("song.decoded.wav").exists()
    assert "broken.vqc -> broken.decoded.png" in invoke("decode", "broken.vqc", "--dry-run").stdout
    assert "song.vqc -> s/song.decoded.wav" in invoke("decode", "song.vqc", "--dry-run", "-o", "s/").stdout


def test_wrong_durations(song):
    result = invoke("decode", "song.vqc", "--max-seconds", "20")
    assert (result.exit_code, "'20' is not a duration; write 90s" in result.stderr) == (2, True)
