"""The page of `evaluate --report`: complete, harmless, bounded, and alive in a browser."""

from __future__ import annotations

import base64
import html.parser
import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
import vqcodec
from chromium import Chromium, needs_chromium
from conftest import draw, sing
from vqcodec import evaluation, media
from vqcodec.evaluation import report
from vqcodec.evaluation.audio import COLUMNS as AUDIO_COLUMNS
from vqcodec.evaluation.candidates import Candidate, Measured
from vqcodec.evaluation.image import COLUMNS
from vqcodec.evaluation.report import Gallery, Selection, write_report
from vqcodec.evaluation.report.gallery import badness
from vqcodec.evaluation.report.page import document, escape, paragraph, table
from vqcodec.evaluation.report.plots import HEIGHT, WIDTH, plot

EVIL = "<img src=x onerror=alert(1)>\"'&.png"


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and all text outside of style and script."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._inside = "", ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("style", "script"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def row(**changes: Any) -> dict[str, Any]:
    """A row of an image."""
    figures = {"file": "a.png", "codec": "ours", "q": 3.0, "bytes": 1000, "bpp": 1.0, "psnr_db": 30.0}
    figures |= {"width": 40, "height": 30, "encode_seconds": 1.0, "decode_seconds": 1.0}
    return dict.fromkeys(COLUMNS) | figures | changes


def measured(error: int, **changes: Any) -> Measured:
    """What was measured of `original`, which an error was added to."""
    return Measured(row(psnr_db=50.0 - error, **changes), media.Image(original().samples ^ error), ours=True)


def original(width: int = 40, height: int = 30) -> media.Image:
    return media.Image(draw(width, height))


def bytes_of(uri: str | None) -> bytes:
    assert uri is not None and uri.startswith("data:")
    return base64.b64decode(uri.partition(",")[2])


@pytest.fixture(scope="module")
def written(small: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of three images, one of a hostile name, with JPEG at our bytes."""
    folder = tmp_path_factory.mktemp("report")
    for number, name in enumerate((EVIL, "plain.png", "other.png")):
        PIL.Image.fromarray(draw(200, 170, number)).save(folder / name)
    gallery = Gallery()
    rows = vqcodec.evaluate(folder, model=small, against=["jpeg"], gallery=gallery)
    target = folder / "report.html"
    write_report(rows, target, gallery=gallery, command=f"vqcodec evaluate '{EVIL}'")
    return target


def test_the_page_shows_everything_and_asks_for_nothing(written: Path) -> None:
    page = Page(written.read_bytes())
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")  # type: ignore[union-attr]
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv"))
    assert policy is not None and "default-src 'none'" in policy and "unsafe" not in policy
    pictures = page.all("img")
    assert len(pictures) == 9 and {a["alt"] for a in pictures} == {"original", "small q3", "jpeg"}
    for a in pictures:
        with PIL.Image.open(io.BytesIO(bytes_of(a["src"]))) as shown:
            assert shown.format == "WEBP" and shown.size == (200, 170)
    originals = [bytes_of(a["src"]) for a in pictures if a["alt"] == "original"]
    pixels = {np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")).tobytes() for data in originals}
    assert pixels == {draw(200, 170, number).tobytes() for number in range(3)}
    for text in ("PSNR dB", "MS-SSIM", "torch", "cores", "All files are shown", "machine"):
        assert text in page.text
    assert len([a for a in page.all("svg") if a.get("role") == "img"]) == 3


def test_names_are_text_wherever_they_stand(written: Path) -> None:
    page = Page(written.read_bytes())
    assert page.text.count(EVIL) >= 3, "section, table and command"
    assert not any("onerror" in attributes or attributes.get("src") == "x" for _, attributes in page.tags)


@pytest.mark.parametrize("name", [EVIL, "</script><script>alert(1)</script>", "a\x00b\u202ec", "\udcff.png"])
def test_hostile_names_of_files_codecs_and_rows(name: str, tmp_path: Path) -> None:
    gallery = Gallery()
    rows = [row(file=name, codec=name), row(file=name, codec=name, q=4.0, bpp=2.0, same_bytes_as=name)]
    gallery.add(name, original(), [measured(3, codec=name)])
    write_report(rows, tmp_path / "r.html", gallery=gallery, command=name)
    page = Page((tmp_path / "r.html").read_bytes())
    assert len(page.all("script")) == 1 and len(page.all("img")) == 2
    assert not any("onerror" in attributes for _, attributes in page.tags)
    shown = {"a\x00b\u202ec": "a\\x00b\\u202ec", "\udcff.png": "\\udcff.png"}.get(name, name)
    assert shown in Page(document("t", [paragraph(name)])).text
    assert not set(escape(name)) & set("<>\"'\x00\u202e\udcff")


def test_the_worst_files_are_kept_and_no_others() -> None:
    gallery = Gallery(files=2)
    for number, error in enumerate((1, 9, 5, 2, 7)):
        gallery.add(f"{number}.png", original(), [measured(error)])
    gallery.add("equal.png", original(), [Measured(row(psnr_db=math.inf), original(), ours=True)])
    assert [exhibit.file for exhibit in gallery.worst("image")] == ["1.png", "4.png"]
    assert gallery.worst("audio") == []


def test_the_size_of_the_page_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gallery, rows = Gallery(), [row(file=f"{n}.png", psnr_db=50.0 - n) for n in range(9)]
    for number in range(9):
        gallery.add(f"{number}.png", original(), [measured(number)])
    size = gallery.worst("image")[0].size + gallery.worst("image")[1].size
    monkeypatch.setattr(report, "MAX_BYTES", size)
    monkeypatch.setattr(report, "MAX_ROWS", 4)
    write_report(rows, tmp_path / "r.html", gallery=gallery)
    page = Page((tmp_path / "r.html").read_bytes())
    assert "2 of 9 files are shown" in page.text and "The first 4 of 9 rows" in page.text
    assert len(page.all("img")) == 4
    assert re.findall(r"\d\.png", page.text) == ["8.png", "7.png", "8.png", "7.png", "6.png", "5.png"]


def test_large_images_are_shown_where_the_error_is() -> None:
    samples = draw(1600, 700)
    wrong = samples.copy()
    wrong[600:650, 1400:1500] ^= 128
    gallery = Gallery()
    gallery.add("a.png", media.Image(samples), [Measured(row(), media.Image(wrong), ours=True)])
    (exhibit,) = gallery.worst("image")
    assert exhibit.views[0].size == (768, 512)
    with PIL.Image.open(io.BytesIO(exhibit.views[1].image)) as shown:
        pixels = np.asarray(shown.convert("RGB"))
    left, top = map(int, re.findall(r"at (\d+), (\d+)", exhibit.part)[0])
    assert np.array_equal(pixels, wrong[top : top + 512, left : left + 768])
    assert top <= 600 and left <= 1400 and top + 512 >= 650 and left + 768 >= 1500


def test_sounds_have_a_player_and_a_spectrogram(tmp_path: Path) -> None:
    sound = media.Audio.of(sing(12), 16_000)
    figures = {"file": "a.wav", "codec": "ours", "bytes": 500, "kbps": 2.0, "log_mel": 0.3, "si_sdr_db": 1.0}
    figures |= {"encode_seconds": 1.0, "decode_seconds": 1.0, "seconds": 12.0}
    one = dict.fromkeys(AUDIO_COLUMNS) | figures
    gallery = Gallery()
    gallery.add("a.wav", sound, [Measured(one, sound, ours=True)])
    write_report([one], tmp_path / "r.html", gallery=gallery)
    page = Page((tmp_path / "r.html").read_bytes())
    players = [bytes_of(a["src"]) for a in page.all("audio")]
    assert len(players) == 2
    samples, rate = soundfile.read(io.BytesIO(players[0]), dtype="float32")
    assert rate == 16_000 and np.abs(samples - sound.signal[0, :160_000]).max() < 1e-4
    with PIL.Image.open(io.BytesIO(bytes_of(page.all("img")[0]["src"]))) as shown:
        assert shown.size == (160_000 // 256 + 1, 80) and len(np.unique(shown)) > 20
    assert "shown are the first 10" in page.text


def test_the_middle_point_and_the_nearest_bytes_are_chosen() -> None:
    candidates = [Candidate(None, "ours", quality) for quality in (1, 2, 3)]
    selection = Selection(candidates)
    for quality in (1, 2, 3):
        selection.add(Measured(row(q=float(quality), bytes=100 * quality), original(), ours=True))
        for offset in (-30, 10):
            selection.add(Measured(row(codec="jpeg", bytes=100 * quality + offset), original))
    assert [m.row["bytes"] for m in selection.chosen()] == [200, 210]


def test_what_is_worst() -> None:
    assert badness(row(psnr_db=30.0)) > badness(row(psnr_db=31.0)) > badness(row(psnr_db=math.inf))
    assert badness(row(psnr_db=31.0, ssimulacra2=10.0)) > badness(row(psnr_db=30.0, ssimulacra2=20.0))
    audio = dict.fromkeys(AUDIO_COLUMNS) | {"kbps": 2.0}
    assert badness(audio | {"log_mel": 0.4}) > badness(audio | {"log_mel": 0.3})


def test_cells() -> None:
    shown = table(
        {"a": "A", "b": "B", "c": "C"}, [{"a": "x<", "b": math.inf}, {"a": None, "b": 0.125, "c": None}]
    )
    assert "x&lt;" in shown and "no error" in shown and "0.1250" in shown
    assert ">C<" not in shown, "no row has a value"
    assert 'data-value="inf"' in shown and 'data-value="0.125"' in shown


def test_plots_place_points_by_their_values() -> None:
    shown = plot({"a": [(0.1, 30.0), (1.0, 35.0), (10.0, 40.0)]}, x_label="x", y_label="<y>", log_x=True)
    points = [tuple(map(float, p.split(","))) for p in re.findall(r'points="([^"]+)"', shown)[0].split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert 0 < x0 < x2 < WIDTH and 0 < y2 < y0 < HEIGHT
    assert "&lt;y&gt;" in shown and "<title>a: 0.1, 30</title>" in shown
    alike = plot({"a": [(1, 0.9), (2, 0.99), (3, 0.999)]}, x_label="x", y_label="y", similarity=True)
    (_, y0), (_, y1), (_, y2) = (p.split(",") for p in re.findall(r'points="([^"]+)"', alike)[0].split())
    assert float(y0) - float(y1) == pytest.approx(float(y1) - float(y2), abs=0.2)
    assert plot({"a": []}, x_label="x", y_label="y") == ""
    assert plot({"a": [(5, 5)]}, x_label="x", y_label="y").count("<circle") == 1


def test_curves_and_bd_rates(tmp_path: Path) -> None:
    points = [(0.5, 30.0), (1.0, 33.0), (2.0, 36.0)]
    rows = [row(codec="ours", q=q, bpp=bpp, psnr_db=y) for q, (bpp, y) in enumerate(points)]
    rows += [row(codec="webp", q=q, bpp=2 * bpp, psnr_db=y) for q, (bpp, y) in enumerate(points)]
    write_report([*rows, row(psnr_db=math.inf, q=9.0, bpp=9.0)], tmp_path / "r.html")
    text = Page((tmp_path / "r.html").read_bytes()).text
    assert "BD-rate, %" in text and re.search(r"ours\s*webp\s*1\s*-50.00", text)
    assert "no error" in text and "identical" in text


def test_no_rows_and_no_gallery(tmp_path: Path) -> None:
    write_report([], tmp_path / "r.html")
    assert "Nothing was measured" in Page((tmp_path / "r.html").read_bytes()).text
    evaluation.write_report([row()], tmp_path / "r.html")
    assert "a.png" in Page((tmp_path / "r.html").read_bytes()).text


COLUMN = (
    "(name) => [...document.querySelectorAll('table.sortable')].map((table) => {"
    "const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === name);"
    "table.tHead.rows[0].cells[column].querySelector('button').click();"
    "return [...table.tBodies[0].rows].map((row) => row.cells[column].textContent); })[0]"
)


@needs_chromium
def test_in_chromium_it_sorts_slides_and_enlarges(written: Path, tmp_path: Path) -> None:
    with Chromium(tmp_path / "profile") as browser:
        browser.open(written)
        for down in (False, True):
            sizes = [float(text.replace(",", "")) for text in browser.run(f"({COLUMN})('bytes')")]
            assert sizes == sorted(sizes, reverse=down) and len(set(sizes)) == 3
        names = browser.run(f"({COLUMN})('file')")
        assert names == sorted(names, key=str.lower) and names != names[::-1] and names[0].endswith(EVIL)

        browser.run("document.querySelector('.sheet').scrollIntoView({block: 'center'})")
        box = "var b = document.querySelector('.sheet').getBoundingClientRect();"
        left, top, width, height = browser.run(f"{box} [b.left, b.top, b.width, b.height]")
        assert (width, height) == (200, 170)
        cut = "document.querySelector('.sheet img + img').style.clipPath"
        assert browser.run(cut) == "inset(0px 0px 0px 50%)"
        browser.drag((left + 100, top + 50), (left + 60, top + 50), (left + 50, top + 50))
        assert browser.run(cut) == "inset(0px 0px 0px 25%)"
        browser.run(
            "var range = document.querySelector('input[type=range]'); range.value = 80;"
            "range.dispatchEvent(new Event('input'))"
        )
        assert browser.run(cut) == "inset(0px 0px 0px 80%)"
        browser.run(
            "[...document.querySelectorAll('.controls button')].find((b) => b.textContent === '4x').click()"
        )
        assert browser.run(f"{box} b.width") == 800

        shown = "[...document.querySelectorAll('.sheet img')].slice(0, 2).map((image) => image.src)"
        pictures = browser.run(
            "[...document.querySelectorAll('.pictures img')].slice(0, 3).map((i) => i.src)"
        )
        assert browser.run(shown) == pictures[:2]
        browser.run(
            "var select = document.querySelectorAll('.controls select')[1]; select.selectedIndex = 2;"
            "select.dispatchEvent(new Event('change'))"
        )
        assert browser.run(shown) == [pictures[0], pictures[2]]
        decoded = "[...document.querySelectorAll('.sheet img')].map((image) => image.decode())"
        assert browser.run(f"Promise.all({decoded}).then(() => true)")

        backgrounds = []
        for dark in (False, True):
            browser.open(written, width=390, dark=dark)
            assert browser.run("document.documentElement.scrollWidth") <= 390, "only tables scroll sideways"
            backgrounds.append(browser.run("getComputedStyle(document.body).backgroundColor"))
        assert backgrounds[0] != backgrounds[1]
        assert browser.requests == [written.as_uri()] * 3
        assert browser.errors == []
