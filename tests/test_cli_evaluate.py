import importlib.util
import sys
from pathlib import Path

import pytest
from cli_fakes import install, invoke, records


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("kodak/inner").mkdir(parents=True)
    Path("kodak/a.png").write_bytes(b"a")
    Path("kodak/inner/b.png").write_bytes(b"b")
    return install(monkeypatch)


def test_options_reach_the_api(fakes):
    result = invoke(
        *("evaluate", "kodak", "-m", "fake-image", "--model", "x", "-q", "2", "--quality", "3"),
        *(
            "--against",
            "jpeg, avif",
            "--sweep",
            "--effort",
            "2",
            "--save-decoded",
            "out",
            "--device",
            "cpu",
            "-j",
            "1",
        ),
    )
    assert result.exit_code == 0, result.stderr
    assert fakes.named("evaluate") == [
        {
            "sources": [Path("kodak/a.png")],
            "model": ["fake-image", "x"],
            "quality": [2.0, 3.0],
            "against": ("jpeg", "avif"),
            "sweep": True,
            "effort": 2,
            "save_decoded": "out",
            "device": "cpu",
            "gallery": None,
        }
    ]
    assert "1 files in inner folders left out; add -r to include them" in result.stderr


def test_recursion_and_defaults(fakes):
    invoke("evaluate", "kodak", "-r")
    (call,) = fakes.named("evaluate")
    assert call["sources"] == [Path("kodak/a.png"), Path("kodak/inner/b.png")]
    assert (call["model"], call["quality"], call["against"]) == (None, None, ())


def test_table_has_an_estimate_only_when_verbose(fakes):
    result = invoke("evaluate", "kodak/a.png")
    assert "kodak/a.png  fake-image" in result.stdout
    assert "inf" in result.stdout
    assert "mean of" in result.stdout
    assert "estimate" not in result.stdout
    assert "estimate" in invoke("evaluate", "kodak/a.png", "-v").stdout


def test_files_are_written_and_not_overwritten(fakes):
    result = invoke("evaluate", "kodak/a.png", "-o", "rates.csv", "--plot", "curve.svg")
    assert result.exit_code == 0
    assert "kodak/a.png" not in result.stdout
    assert "mean of" in result.stdout
    assert fakes.named("write_csv")[0]["path"] == "rates.csv"
    assert fakes.named("plot") == [{"path": "curve.svg"}]
    invoke("evaluate", "kodak/a.png", "--output", "rates.json")
    assert fakes.named("write_json")[0]["path"] == "rates.json"

    Path("rates.csv").write_text("precious")
    before = len(fakes.calls)
    assert "rates.csv exists" in invoke("evaluate", "kodak/a.png", "-o", "rates.csv").stderr
    assert invoke("evaluate", "kodak/a.png", "-o", "rates.xls").exit_code == 2
    assert invoke("evaluate", "kodak/a.png", "-o", "absent/rates.csv").exit_code == 2
    assert len(fakes.calls) == before
    assert invoke("evaluate", "kodak/a.png", "-o", "rates.csv", "-f").exit_code == 0


def test_a_report_gets_what_was_measured_and_the_command(fakes, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/vqcodec", "evaluate", "a b.png"])
    assert invoke("evaluate", "kodak/a.png", "--report", "page.html").exit_code == 0
    (call,) = fakes.named("write_report")
    assert (call["path"], call["command"]) == ("page.html", "vqcodec evaluate 'a b.png'")
    assert call["gallery"] is fakes.named("evaluate")[0]["gallery"] is not None
    Path("page.html").write_text("precious")
    assert "page.html exists" in invoke("evaluate", "kodak/a.png", "--report", "page.html").stderr
    assert invoke("evaluate", "kodak/a.png", "--report", "page.pdf").exit_code == 2
    assert len(fakes.named("evaluate")) == 1


def test_broken_picture_is_passed_over(fakes):
    Path("kodak/bad.png").write_bytes(b"BAD")
    result = invoke("evaluate", "kodak", "--json", "--no-progress")
    assert result.exit_code == 1
    assert "vqcodec: kodak/bad.png: truncated PNG" in result.stderr
    kinds = [record["type"] for record in records(result)]
    assert kinds == ["file", "row", "mean", "summary"]
    assert records(result)[1]["psnr_db"] is None
    assert (records(result)[3]["ok"], records(result)[3]["failed"]) == (1, 1)


def test_curves_are_compared_and_columns_explained(fakes):
    result = invoke("evaluate", "kodak", "-r")
    *_, head, row = result.stdout.splitlines()
    assert head.split("  ")[0] == "BD-rate of" and "by PSNR dB, %" in head
    assert row.split() == ["fake-image", "jpeg", "1", "-12.50"]
    assert "MS-SSIM" not in result.stdout and "unmatched" not in result.stdout, "nobody measured it"
    assert "PSNR dB: 10 log10" in result.stderr and "BD-rate: mean difference of rate" in result.stderr
    assert "MS-SSIM" not in result.stderr
    assert "BD-rate" not in invoke("evaluate", "kodak", "-r", "--quiet").stderr
    found = records(invoke("evaluate", "kodak", "-r", "--json"))
    found[-2].pop("type")
    assert found[-2] == {
        "codec": "fake-image",
        "against": "jpeg",
        "files": 1,
        "psnr_db": -12.5,
        "ms_ssim": None,
    }


def test_metrics_without_their_package_are_named(fakes, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ssimulacra2" else there(name)
    )
    result = invoke("evaluate", "kodak/a.png")
    assert "not measured: SSIMULACRA2; install them with pip install 'vqcodec[metrics]'" in result.stderr


def test_nothing_to_measure(fakes):
    Path("empty").mkdir()
    assert invoke("evaluate", "empty").exit_code == 2
    assert invoke("evaluate", "gone.png").exit_code == 1
    assert invoke("evaluate", "-", input=b"x").exit_code == 2


@pytest.fixture
def talks(fakes):
    Path("talks").mkdir()
    Path("talks/t.wav").write_bytes(b"RIFF    WAVE")
    return fakes


def test_sounds_have_a_table_of_their_own(talks):
    result = invoke("evaluate", "talks", "--against", "opus,opus:12")
    assert talks.named("evaluate")[0]["against"] == ("opus", "opus:12")
    head, row, blank, mean_head, mean = result.stdout.splitlines()
    assert head.split("  ")[0] == "file" and "kbit/s" in head and "log-mel" in head and "SI-SDR dB" in head
    assert row.split()[:2] == ["talks/t.wav", "fake-audio"]
    assert (blank, mean_head.split()[:2], mean.split()[0]) == ("", ["mean", "of"], "fake-audio")
    assert "decode x" in mean_head
    assert "STOI" in head, "it was measured"
    assert "PESQ" not in head and "STOI" not in mean_head, "nobody measured it"
    assert "estimate" not in result.stdout and "bpp" not in result.stdout
    assert "estimate" in invoke("evaluate", "talks", "-v").stdout


def test_pictures_and_sounds_are_kept_apart(talks):
    result = invoke("evaluate", "talks", "kodak/a.png")
    heads = [line for line in result.stdout.splitlines() if "codec" in line or line.startswith("mean of")]
    assert ["PSNR dB" in line for line in heads] == [True, True, False, False]
    assert ["log-mel" in line for line in heads] == [False, False, True, True]
    found = records(invoke("evaluate", "talks", "kodak/a.png", "--json"))
    assert [record["type"] for record in found] == ["row", "row", "mean", "mean", "summary"]
