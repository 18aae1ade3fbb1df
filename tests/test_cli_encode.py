"""`vqcodec encode` with a stand-in for the API: options, messages, records, exit codes."""

import os
from pathlib import Path

import pytest
from cli_fakes import invoke, records
from vqcodec.bitstream import container
from vqcodec.errors import DamagedError


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
        *("tags", "--keep-gps", "--max-pixels", "200M", "-q", "4.5", "--device", "cpu", "--pixel-crc"),
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
        "lossless": False,
        "fast": True,
        "effort": 3,
        "max_pixels": 200_000_000,
        "strip": ("exif", "tags"),
        "keep_gps": True,
        "device": "cpu",
        "tune": None,
        "pixel_crc": True,
    }


def test_tune_chooses_the_default_model(fakes):
    assert invoke("encode", "a.png", "--tune", "psnr").exit_code == 0
    assert fakes.named("encode_file")[0]["tune"] == "psnr"
    result = invoke("encode", "a.png", "--tune", "psnr", "--dry-run", "--json", "-f")
    assert records(result)[0]["model"] == "fake-image-psnr"
    result = invoke("encode", "a.png", "--tune", "psnr", "-m", "fake-image")
    assert result.exit_code == 2 and "--tune chooses the model, as -m does\n  hint: " in result.stderr
    for needless in (["-m", "fake-image"], ["--lossless"]):
        result = invoke("encode", "a.png", "--tune", "visual", *needless)
        assert result.exit_code == 2 and "--tune chooses the model, " in result.stderr
    assert invoke("encode", "a.png", "--tune", "ssim").exit_code == 2


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
        ("--lossless", None, "lossless", True),
    ],
)
def test_goals_reach_the_api(fakes, option, text, name, value):
    assert invoke("encode", "a.png", option, *([text] if text else [])).exit_code == 0
    assert fakes.named("encode_file")[0][name] == value


def test_goals_exclude_each_other(fakes):
    result = invoke("encode", "a.png", "-q", "3", "--bpp", "0.3")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "vqcodec: -q, --bitrate, --bpp, --psnr, --target-size and --lossless exclude each other\n  hint: "
    )
    assert invoke("encode", "a.png", "--lossless", "-q", "3").exit_code == 2
    assert invoke("encode", "a.png", "--bitrate", "3", "--bpp", "0.3").exit_code == 2
    assert not Path("a.vqc").exists()


def test_unreachable_target_fails_the_file(fakes):
    result = invoke("encode", "a.png", "--target-size", "1B")
    assert result.exit_code == 1
    assert "vqcodec: a.png: smallest is 31 kB, target 1 B" in result.stderr


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
    assert "no model 'vqvea'\n  hint: choose one of fake-image" in result.stderr
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
    invoke("encode", "a.png", "-j", "3")  # small: a second thread would only be waited for
    Path("b.png").write_bytes(b"b" * 100_000)
    invoke("encode", "b.png", "-j", "3")
    invoke("encode", "b.png", "-f")
    assert seen == [1, 3, None]
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
    assert "vqcodec: bug.png: internal error: ZeroDivisionError: a bug\n  hint: report it" in result.stderr
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
