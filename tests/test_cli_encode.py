import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_fakes import bitstream, install, invoke, records, sound_bitstream
from vqcodec.bitstream import container
from vqcodec.errors import DamagedError


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(b"a" * 1000)
    Path("b.png").write_bytes(b"b" * 1000)
    return install(monkeypatch)


def test_output_lies_beside_the_input_with_its_time(fakes):
    os.utime("a.png", (1_000_000_000, 1_000_000_000))
    result = invoke("encode", "a.png")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "a.png -> a.vqc" in result.stderr
    assert container.read_info(Path("a.vqc").read_bytes()).model == "fake-image"
    assert Path("a.vqc").stat().st_mtime == 1_000_000_000
    assert Path("a.png").exists()
    assert sorted(os.listdir()) == ["a.png", "a.vqc", "b.png"]


def test_no_mtime(fakes):
    os.utime("a.png", (1_000_000_000, 1_000_000_000))
    assert invoke("encode", "a.png", "--no-mtime").exit_code == 0
    assert Path("a.vqc").stat().st_mtime > 1_500_000_000


def test_options_reach_the_api(fakes):
    result = invoke(
        *("encode", "-m", "fake-image", "--effort", "3", "--fast", "a.png", "--strip", "exif", "--strip"),
        *("tags", "--keep-gps", "--max-pixels", "200M", "-q", "4.5", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.stderr
    assert fakes.named("load") == [{"model": "fake-image", "device": "cpu"}]
    (call,) = fakes.named("encode_file")
    assert call == {
        "source": Path("a.png"),
        "model": "fake-image",
        "quality": 4.5,
        "bitrate": None,
        "bpp": None,
        "psnr": None,
        "target_size": None,
        "fast": True,
        "effort": 3,
        "max_pixels": 200_000_000,
        "strip": ("exif", "tags"),
        "keep_gps": True,
        "device": "cpu",
    }


def test_the_pixel_limit_is_the_apis_unless_given(fakes):
    invoke("encode", "a.png")
    assert "max_pixels" not in fakes.named("encode_file")[0]


@pytest.mark.parametrize(
    ("option", "text", "name", "value"),
    [
        ("--bitrate", "2.4", "bitrate", 2.4),
        ("--bpp", "0.4", "bpp", 0.4),
        ("--psnr", "30", "psnr", 30.0),
        ("--target-size", "40kB", "target_size", 40_000),
        ("--quality", "3", "quality", 3.0),
    ],
)
def test_goals_reach_the_api(fakes, option, text, name, value):
    assert invoke("encode", "a.png", option, text).exit_code == 0
    assert fakes.named("encode_file")[0][name] == value


def test_goals_exclude_each_other(fakes):
    result = invoke("encode", "a.png", "-q", "3", "--bpp", "0.3")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "vqcodec: -q, --bitrate, --bpp, --psnr and --target-size exclude each other\n  hint: "
    )
    assert invoke("encode", "a.png", "--bitrate", "3", "--bpp", "0.3").exit_code == 2
    assert not Path("a.vqc").exists()


def test_unreachable_target_fails_the_file(fakes):
    result = invoke("encode", "a.png", "--target-size", "1B")
    assert result.exit_code == 1
    assert "vqcodec: a.png: smallest is 31 kB, target 1 B" in result.stderr


def test_existing_output_is_refused_before_work_replaced_or_skipped(fakes):
    Path("a.vqc").write_bytes(b"precious")
    result = invoke("encode", "a.png", "b.png")
    assert result.exit_code == 1
    assert "vqcodec: a.png: a.vqc exists\n  hint: -f or --skip-existing" in result.stderr
    assert Path("a.vqc").read_bytes() == b"precious"
    assert Path("b.vqc").exists()
    assert [call["source"] for call in fakes.named("encode_file")] == [Path("b.png")]

    result = invoke("encode", "a.png", "b.png", "--skip-existing")
    assert (result.exit_code, Path("a.vqc").read_bytes()) == (0, b"precious")

    assert invoke("encode", "a.png", "-f").exit_code == 0
    assert Path("a.vqc").read_bytes().startswith(container.MAGIC)
    assert invoke("encode", "a.png", "--force", "--skip-existing").exit_code == 2


def test_two_inputs_with_one_output(fakes):
    Path("a.jpg").write_bytes(b"jpg")
    result = invoke("encode", "a.png", "a.jpg")
    assert result.exit_code == 2
    assert "a.png and a.jpg: both would write a.vqc" in result.stderr
    assert "hint: -o or different folders" in result.stderr
    assert fakes.calls == []


def test_output_equal_to_input_is_refused_even_with_force(fakes):
    for arguments in (["a.png", "-o", "a.png"], ["a.png", "-o", "./a.png"], ["a.png", "-o", "hard.png"]):
        if not Path("hard.png").exists():
            os.link("a.png", "hard.png")
        result = invoke("encode", *arguments, "-f")
        assert result.exit_code == 2
        assert "would overwrite its own input" in result.stderr
    assert Path("a.png").read_bytes() == b"a" * 1000


def test_output_that_is_another_input_is_refused(fakes):
    Path("out").mkdir()
    Path("out/a.vqc").write_bytes(b"x")
    result = invoke("encode", "a.png", "out/a.vqc", "-o", "out/", "-f")
    assert result.exit_code == 2
    assert "would overwrite" in result.stderr


def test_one_file_name_for_many_inputs(fakes):
    result = invoke("encode", "a.png", "b.png", "-o", "x.vqc")
    assert result.exit_code == 2
    assert "-o names a file but there are 2 inputs\n  hint: end it with /" in result.stderr


def test_output_folders(fakes):
    assert invoke("encode", "a.png", "b.png", "-o", "new/deep/").exit_code == 0
    assert sorted(os.listdir("new/deep")) == ["a.vqc", "b.vqc"]
    Path("there").mkdir()
    assert invoke("encode", "a.png", "--output", "there").exit_code == 0
    assert os.listdir("there") == ["a.vqc"]
    result = invoke("encode", "a.png", "-o", "absent/x.vqc")
    assert (result.exit_code, "no folder absent" in result.stderr) == (2, True)


def test_folders_are_mirrored_and_foreign_files_told(fakes):
    for name in ("holiday/one.jpg", "holiday/day/two.PNG", "holiday/notes.txt", "holiday/old.vqc"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"p" * 100)
    Path("holiday/.hidden.png").write_bytes(b"p")
    result = invoke("encode", "holiday", "-r", "-o", "packed/")
    assert result.exit_code == 0
    assert sorted(str(p) for p in Path("packed").rglob("*.vqc")) == ["packed/day/two.vqc", "packed/one.vqc"]
    assert "holiday/notes.txt: skipped, not an image or sound" in result.stderr
    assert "old.vqc" not in result.stderr
    assert "2 files  200 B -> " in result.stderr
    assert fakes.named("choose_device") == [{"device": "auto"}]


def test_folder_without_recursion_and_barren_folder(fakes):
    Path("dir").mkdir()
    result = invoke("encode", "dir", "a.png")
    assert result.exit_code == 1
    assert "vqcodec: dir: is a folder\n  hint: add -r" in result.stderr
    assert Path("a.vqc").exists()
    result = invoke("encode", "dir", "--recursive")
    assert (result.exit_code, "no images or sounds in dir" in result.stderr) == (2, True)


def test_missing_file_names_the_nearest_and_the_rest_is_done(fakes):
    result = invoke("encode", "A.pgn", "b.png")
    assert result.exit_code == 1
    assert "vqcodec: A.pgn: no such file\n  hint: is it a.png?" in result.stderr
    assert Path("b.vqc").exists()
    assert "1 of 2 files, 1 failed" in result.stderr


def test_nothing_is_loaded_for_a_missing_file(fakes):
    assert invoke("encode", "zzz.png").exit_code == 1
    assert fakes.calls == []


def test_json_records_and_exit_code(fakes):
    Path("bad.png").write_bytes(b"BAD")
    Path("deep.png").write_bytes(b"DEEP")
    result = invoke("encode", "a.png", "bad.png", "deep.png", "gone.png", "--json")
    assert result.exit_code == 1
    found = {record.get("input"): record for record in records(result)}
    size = Path("a.vqc").stat().st_size
    done = found["a.png"]
    assert done.pop("seconds") >= 0
    assert done == {
        "type": "file",
        "input": "a.png",
        "output": "a.vqc",
        "status": "ok",
        "model": "fake-image",
        "quality": 3,
        "width": 8,
        "height": 4,
        "bytes_in": 1000,
        "bytes_out": size,
        "bpp": 8 * size / 32,
    }
    assert found["bad.png"] == {
        "type": "file",
        "input": "bad.png",
        "status": "error",
        "error": "truncated: 489 of 1000 bytes",
        "hint": "copy the file again",
    }
    assert found["deep.png"]["warnings"] == ["16 bit: reduced to 8"]
    assert found["gone.png"]["error"] == "no such file"
    assert found[None] == {
        "type": "summary",
        "ok": 2,
        "failed": 2,
        "skipped": 0,
        "bytes_in": 1004,
        "bytes_out": 2 * size,
    }


def test_warnings_name_their_file_and_quiet_hides_them(fakes):
    Path("deep.png").write_bytes(b"DEEP")
    result = invoke("encode", "deep.png")
    assert "warning: deep.png: 16 bit: reduced to 8" in result.stderr
    result = invoke("encode", "deep.png", "-f", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    result = invoke("encode", "gone.png", "--quiet")
    assert "no such file" in result.stderr


def test_stdin_goes_to_stdout(fakes):
    result = invoke("encode", "-", input=b"abc")
    assert result.exit_code == 0
    assert result.stdout_bytes.startswith(container.MAGIC)
    assert fakes.named("encode_file")[0]["source"] == b"abc"
    result = invoke("encode", "-", "-o", "x.vqc", input=b"abc")
    assert (result.exit_code, result.stdout_bytes) == (0, b"")
    assert Path("x.vqc").exists()
    assert invoke("encode", "-", "-", input=b"abc").exit_code == 2
    result = invoke("encode", "-", input=b"")
    assert (result.exit_code, "vqcodec: stdin: empty file" in result.stderr) == (1, True)


def test_file_to_stdout(fakes):
    result = invoke("encode", "a.png", "-o", "-")
    assert result.stdout_bytes.startswith(container.MAGIC)
    assert invoke("encode", "a.png", "b.png", "-o", "-").exit_code == 2
    assert invoke("encode", "a.png", "-o", "-", "--json").exit_code == 2


def test_no_binary_to_a_terminal(fakes, monkeypatch):
    monkeypatch.setattr("vqcodec.cli.paths.is_terminal", lambda stream: stream is sys.stdout)
    result = invoke("encode", "-", input=b"abc")
    assert result.exit_code == 2
    assert "not writing binary to a terminal\n  hint: -o FILE" in result.stderr


def test_no_reading_from_a_terminal(fakes, monkeypatch):
    monkeypatch.setattr("vqcodec.cli.paths.is_terminal", lambda stream: stream is sys.stdin)
    assert invoke("encode", "-", input=b"abc").exit_code == 2


def test_dry_run_writes_nothing_and_runs_no_network(fakes):
    Path("b.vqc").write_bytes(b"there")
    result = invoke("encode", "a.png", "b.png", "--dry-run", "--bpp", "0.4")
    assert result.exit_code == 1
    assert result.stdout == "a.png -> a.vqc  model fake-image  bpp 0.4\n"
    assert "b.vqc exists" in result.stderr
    assert not Path("a.vqc").exists()
    assert fakes.calls == []
    assert invoke("encode", "a.png", "--dry-run", "-m", "wrong").exit_code == 2


def test_verify_prints_the_psnr(fakes):
    result = invoke("encode", "a.png", "--verify")
    assert "verified, 28.70 dB" in result.stderr
    assert invoke("encode", "a.png", "b.png", "--verify", "-f").stderr.count("verified, 28.70 dB") == 2
    assert records(invoke("encode", "b.png", "--verify", "--json", "-f"))[0]["psnr_db"] == 28.7


def test_verify_of_no_loss(fakes, monkeypatch):
    monkeypatch.setattr("vqcodec.pipeline.verify", lambda encoded: float("inf"))
    assert "verified, no loss" in invoke("encode", "a.png", "--verify").stderr
    assert records(invoke("encode", "b.png", "--verify", "--json"))[0]["psnr_db"] is None


def test_failed_verification_writes_nothing(fakes):
    fakes.raises["verify"] = DamagedError("the bitstream does not decode to its codes", "report this")
    assert invoke("encode", "a.png", "--verify").exit_code == 1
    assert not Path("a.vqc").exists()


def test_unknown_model_and_absent_device_attempt_nothing(fakes):
    result = invoke("encode", "a.png", "-m", "vqvea")
    assert result.exit_code == 2
    assert "no model 'vqvea'\n  hint: one of fake-image" in result.stderr
    Path("old.pt").write_bytes(b"pickle")
    result = invoke("encode", "a.png", "--model", "old.pt")
    assert (result.exit_code, "not a safetensors file" in result.stderr) == (2, True)
    result = invoke("encode", "a.png", "--device", "cuda:0")
    assert (result.exit_code, "no CUDA device" in result.stderr) == (2, True)
    assert invoke("encode", "a.png", "--device", "tpu").exit_code == 2
    assert not Path("a.vqc").exists()


def test_jobs_limits_threads(fakes, monkeypatch):
    seen = []
    monkeypatch.setattr("vqcodec.cli.encode.use_threads", seen.append)
    invoke("encode", "a.png", "-j", "3")
    invoke("encode", "b.png")
    assert seen == [3, None]
    assert invoke("encode", "a.png", "--jobs", "0").exit_code == 2


def test_interruption_leaves_no_partial_output(fakes):
    fakes.raises["verify"] = KeyboardInterrupt()
    result = invoke("encode", "a.png", "--verify", "b.png")
    assert result.exit_code == 130
    assert sorted(os.listdir()) == ["a.png", "b.png"]


def test_internal_error_is_short_and_the_rest_is_done(fakes):
    Path("bug.png").write_bytes(b"BUG")
    result = invoke("encode", "bug.png", "b.png")
    assert result.exit_code == 3
    assert "vqcodec: bug.png: internal error: ZeroDivisionError: a bug\n  hint: -vv" in result.stderr
    assert "Traceback" not in result.stderr
    assert Path("b.vqc").exists()
    assert "Traceback" in invoke("encode", "bug.png", "-vv").stderr


def test_out_of_memory_fails_one_file(fakes):
    fakes.raises["encode_file"] = MemoryError()
    result = invoke("encode", "a.png")
    assert (result.exit_code, "vqcodec: a.png: out of memory" in result.stderr) == (1, True)


def test_verbosity(fakes):
    assert "a.png -> a.vqc" not in invoke("encode", "a.png", "b.png").stderr
    told = invoke("encode", "a.png", "b.png", "-f", "-v").stderr
    assert "a.png -> a.vqc" in told
    assert "coded in" not in told
    assert "coded in" in invoke("encode", "a.png", "-f", "--verbose", "--verbose").stderr


def test_names_are_printed_as_they_are(fakes):
    Path("a[bold].png").write_bytes(b"x")
    Path("\x1b[31m.png").write_bytes(b"BAD")
    result = invoke("encode", "a[bold].png", "\x1b[31m.png", "-v", "--no-progress")
    assert "a[bold].png -> a[bold].vqc" in result.stderr
    assert "\\x1b[31m.png: truncated" in result.stderr
    assert "\x1b" not in result.stderr


def test_double_dash_ends_options(fakes):
    Path("-x.png").write_bytes(b"x")
    assert invoke("encode", "--", "-x.png").exit_code == 0
    assert Path("-x.vqc").exists()


def test_the_same_file_twice_is_coded_once(fakes):
    assert invoke("encode", "a.png", "./a.png").exit_code == 0
    assert len(fakes.named("encode_file")) == 1


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
        "sound_seconds": 2.0,
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
    assert "in/film.mkv: skipped, not an image or sound" in result.stderr


def test_two_sounds_with_one_output(song):
    Path("song.flac").write_bytes(b"fLaC")
    result = invoke("encode", "song.wav", "song.flac")
    assert result.exit_code == 2
    assert (
        "song.wav and song.flac: both would write song.vqc\n  hint: -o or different folders" in result.stderr
    )
    assert song.calls == []


def test_an_option_for_pictures_fails_the_sounds_beside_them(song):
    result = invoke("encode", "a.png", "song.wav", "b.png", "--bpp", "0.4")
    assert result.exit_code == 1
    assert "vqcodec: song.wav: bpp means nothing for sounds\n  hint: give target size" in result.stderr
    assert Path("b.vqc").exists() and not Path("song.vqc").exists()
    # Where there is nothing else, the command is wrong.
    result = invoke("encode", "song.wav", "--bpp", "0.4")
    assert (result.exit_code, "bpp means nothing for sounds" in result.stderr) == (2, True)


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
