"""`vqcodec placeholder`, with the shipped weights."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile
import vqcodec
from cli_fakes import invoke, records
from conftest import photo, sing


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    photo("a.png", 90, 60, 1)
    photo("photos/b.png", 60, 90, 2)


def test_a_line_of_text_each() -> None:
    result = invoke("placeholder", "a.png", "photos", "--recursive")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines == [vqcodec.placeholder("a.png"), vqcodec.placeholder("photos/b.png")]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,32}", line) for line in lines)
    assert result.stderr == ""


@pytest.mark.parametrize("size", [12, 33, 64])
def test_the_size_is_a_limit(size: int) -> None:
    [line] = invoke("placeholder", "a.png", "--size", str(size)).stdout.splitlines()
    assert line == vqcodec.placeholder("a.png", size=size)
    assert len(line) * 6 // 8 <= size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "--size", "11"], "--size"),
        (["a.png", "--size", "65"], "--size"),
        (["a.png", "--format", "xml"], "--format"),
        (["a.png", "-o", "b.png"], "-o belongs to --decode"),
        ([], "name images"),
        (["a.png", "--decode", "AAAA"], "name images"),
        (["--decode", "AAAA", "--width", "0"], "--width"),
        (["--decode", "AAAA", "--width", "4097"], "--width"),
        (["--decode", "AAAA", "-o", "b.txt"], "b.txt is not a name of an image"),
    ],
)
def test_wrong_options_get_two_lines(arguments: list[str], message: str) -> None:
    result = invoke("placeholder", *arguments)
    assert result.exit_code == 2 and result.stdout == ""
    what, hint = result.stderr.splitlines()
    assert what.startswith("vqcodec: ") and message in what and hint.startswith("  hint: ")


def test_json() -> None:
    result = invoke("placeholder", "a.png", "--format", "json")
    text = vqcodec.placeholder("a.png")
    expected = {"input": "a.png", "placeholder": text, "bytes": 6 * len(text) // 8, "width": 90, "height": 60}
    assert json.loads(result.stdout) == expected
    [record, summary] = records(invoke("placeholder", "a.png", "--json"))
    assert record["placeholder"] == text and summary["ok"] == 1


@pytest.mark.parametrize("format", ["css", "html"])
def test_css_and_html_carry_an_image_of_32_pixels(format: str) -> None:
    line = invoke("placeholder", "photos/b.png", "--format", format).stdout
    assert "aspect-ratio: 60 / 90" in line and line.count("\n") == 1
    assert line.startswith('<img src="photos/b.png" width="60" height="90"') == (format == "html")
    found = re.search(r"url\(data:image/(webp|png);base64,([A-Za-z0-9+/=]+)\)", line)
    assert found is not None
    assert PIL.Image.open(io.BytesIO(base64.b64decode(found[2]))).size == (21, 32)


def test_names_are_escaped_in_html() -> None:
    for name, url in (
        ('a"<b>&.png', "a%22%3Cb%3E%26.png"),
        ("a#b 50%25?.png", "a%23b%2050%2525%3F.png"),
        ("data:x.png", "data%3Ax.png"),
        ("a\nb.png", "a%0Ab.png"),
    ):
        photo(name)
        line = invoke("placeholder", name, "--format", "html").stdout
        assert line.startswith(f'<img src="{url}" '), line


def test_a_placeholder_does_not_stay_behind_what_is_transparent() -> None:
    clear = np.full((40, 60, 4), 200, np.uint8)
    clear[:20, :, 3] = 0
    PIL.Image.fromarray(clear).save("clear.png")
    for name, gone in (("clear.png", True), ("a.png", False)):
        line = invoke("placeholder", name, "--format", "html").stdout
        assert ("onload=\"this.style.background='none'\"" in line) == gone


def test_a_text_is_drawn() -> None:
    text = vqcodec.placeholder("a.png")
    result = invoke("placeholder", "--decode", text, "-o", "tiny.png", "--width", "320")
    assert result.exit_code == 0 and "tiny.png: 320 x 214" in result.stderr
    with PIL.Image.open("tiny.png") as picture:
        assert picture.size == (320, 214)
        assert picture.tobytes() == vqcodec.placeholder_image(text, width=320).samples.tobytes()
    taken = invoke("placeholder", "--decode", text, "--output", "tiny.png")
    assert taken.exit_code == 1 and "tiny.png exists" in taken.stderr
    assert invoke("placeholder", "--decode", text, "-o", "tiny.png", "--force", "--quiet").exit_code == 0
    with PIL.Image.open("tiny.png") as picture:
        assert picture.size == (32, 21)
    assert invoke("placeholder", "--decode", text).exit_code == 0 and Path("placeholder.png").is_file()


@pytest.mark.parametrize("text", ["damaged", "Ä", "A" * 200, "a b"])
def test_damaged_texts_get_two_lines(text: str) -> None:
    result = invoke("placeholder", "--decode", text)
    assert result.exit_code == 1 and not Path("placeholder.png").exists()
    what, hint = result.stderr.splitlines()
    assert "placeholder" in what and hint.startswith("  hint: ")


def test_one_failure_does_not_stop_the_others() -> None:
    Path("bad.png").write_bytes(b"nothing")
    soundfile.write("talk.wav", sing(0.2), 16_000)
    result = invoke("placeholder", "gone.png", "bad.png", "talk.wav", "a.png")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [vqcodec.placeholder("a.png")]
    for name in ("gone.png", "bad.png", "talk.wav"):
        assert f"vqcodec: {name}: " in result.stderr
    limited = invoke("placeholder", "a.png", "--max-pixels", "100")
    assert limited.exit_code == 1 and "--max-pixels" in limited.stderr


def test_stdin() -> None:
    result = invoke("placeholder", "-", input=Path("a.png").read_bytes())
    assert result.stdout.splitlines() == [vqcodec.placeholder("a.png")]


def test_no_network_library_is_imported() -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "sys.argv = ['vqcodec', 'placeholder', 'a.png']\n"
        "from vqcodec.cli.main import run\nrun()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, b"False\n")
