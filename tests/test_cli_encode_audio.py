"""`vqcodec encode` with audio, alone and beside images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_fakes import bitstream, invoke, records, sound_bitstream
from vqcodec.bitstream import container


@pytest.fixture
def song(fakes):
    Path("song.wav").write_bytes(WAVE)
    return fakes


WAVE = b"RIFF\xff\x0f\0\0WAVE" + bytes(4000)
"""What a sound begins with is all that the stand-in encoder looks at."""


def test_json_of_a_sound(song):
    (done, summary) = records(invoke("encode", "song.wav", "--json", "--verify"))
    size = len(sound_bitstream())
    assert done | {"seconds": 0} == {
        "type": "file",
        "input": "song.wav",
        "output": "song.vqc",
        "status": "ok",
        "model": "fake-audio",
        "quality": 3,
        "audio_seconds": 2.0,
        "rate": 44_100,
        "channels": 2,
        "bytes_in": 4012,
        "bytes_out": size,
        "kbps": round(8 * size / 1000 / 2, 4),
        "si_sdr_db": 1.5,
        "seconds": 0,
    }
    assert (summary["ok"], summary["bytes_in"]) == (1, 4012)


def test_no_model_is_loaded_for_a_medium_that_is_not_there(song):
    assert invoke("encode", "song.wav", "--device", "cpu").exit_code == 0
    assert fakes_names(song) == ["choose_device", "encode_file"]
    assert song.named("encode_file")[0]["model"] is None


def fakes_names(fakes):
    return [name for name, _ in fakes.calls]


def test_totals_have_a_rate_where_all_are_of_one_medium(song):
    Path("talk.flac").write_bytes(b"fLaC" + bytes(100))
    told = invoke("encode", "song.wav", "talk.flac").stderr
    both = 2 * len(sound_bitstream())
    assert f"{4116 / both:.1f}x, {8 * both / 1000 / 4:.2f} kbit/s)" in told
    told = invoke("encode", "a.png", "song.wav", "-f").stderr
    assert f"({5012 / (len(sound_bitstream()) + len(bitstream())):.1f}x)" in told
    assert "bpp" not in told and "kbit/s" not in told
    told = invoke("encode", "a.png", "b.png", "-f").stderr
    assert "x, " in told and "bpp)" in told
    one = invoke("encode", "song.wav", "-f", "--verify").stderr
    assert f"x, {4 * len(sound_bitstream()) / 1000:.2f} kbit/s)  verified, SI-SDR 1.50 dB" in one


def test_folders_hold_both(song):
    for suffix in ("flac", "ogg", "oga", "opus", "MP3", "aif", "aiff", "au", "caf", "w64", "wav", "avif"):
        Path("in").mkdir(exist_ok=True)
        Path(f"in/{suffix}-x.{suffix}").write_bytes(WAVE)
    Path("in/film.mkv").write_bytes(b"film")
    result = invoke("encode", "in", "-r", "-o", "packed/")
    assert result.exit_code == 0
    assert len(os.listdir("packed")) == 12
    assert "in/film.mkv: skipped, not an image or audio file" in result.stderr


def test_two_sounds_with_one_output(song):
    Path("song.flac").write_bytes(b"fLaC")
    result = invoke("encode", "song.wav", "song.flac")
    assert result.exit_code == 0
    assert Path("song.wav.vqc").is_file() and Path("song.flac.vqc").is_file()


def test_an_option_for_pictures_fails_the_sounds_beside_them(song):
    result = invoke("encode", "a.png", "song.wav", "b.png", "--bpp", "0.4")
    assert result.exit_code == 1
    assert "vqcodec: song.wav: bpp does not apply to audio\n  hint: give target size" in result.stderr
    assert Path("b.vqc").exists() and not Path("song.vqc").exists()
    # Where there is nothing else, the command is wrong.
    result = invoke("encode", "song.wav", "--bpp", "0.4")
    assert (result.exit_code, "bpp does not apply to audio" in result.stderr) == (2, True)


def test_dry_run_names_the_model_of_each_medium(song):
    result = invoke("encode", "a.png", "song.wav", "--dry-run", "--bitrate", "3")
    assert result.stdout == (
        "a.png -> a.vqc  model fake-image  bitrate 3.0\nsong.wav -> song.vqc  model fake-audio  bitrate 3.0\n"
    )
    assert song.calls == []
    Path("unnamed").write_bytes(WAVE)
    assert "model fake-audio" in invoke("encode", "unnamed", "--dry-run").stdout
    result = invoke("encode", "-", "-o", "x.vqc", "--dry-run", input=WAVE)
    assert result.stdout == "stdin -> x.vqc  model fake-audio  quality 3\n"


def test_a_pipe_is_read_to_its_end(song):
    os.mkfifo("pipe.wav")
    writer = subprocess.Popen([sys.executable, "-c", f"open('pipe.wav', 'wb').write({WAVE!r})"])
    assert invoke("encode", "pipe.wav", "-o", "x.vqc").exit_code == 0
    assert writer.wait(10) == 0
    assert song.named("encode_file")[0]["source"] == WAVE
    assert container.read_info(Path("x.vqc").read_bytes()).kind == "audio"


def test_a_warning_about_one_of_several_sounds_names_it(song):
    """What is said of a sound is of no use without its name."""
    Path("talk.flac").write_bytes(b"fLaC" + bytes(100) + b"LOUD")
    told = invoke("encode", "song.wav", "talk.flac").stderr
    assert "warning: talk.flac: 62 to 125 Hz decode 9 dB too loud" in told
