"""The decoder for web pages draws what Python draws: in Node, and in Chromium on a page of 24 images."""

from __future__ import annotations

import html
import http.server
import json
import queue
import re
import runpy
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vqcodec
from chromium import BROWSER, FLAGS, needs_chromium
from conftest import draw
from vqcodec import thumbnails
from vqcodec.placeholders.decoding import Placeholder, decode, render
from vqcodec.placeholders.text import pack

DOCS = Path(__file__).parents[1] / "docs"
BUILD = runpy.run_path(str(DOCS / "placeholder_page.py"))
SHAPES = [(90, 60), (60, 90), (64, 64), (200, 20)]
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no Node")

IN_NODE = """
const placeholder = require(process.argv[1]);
const texts = JSON.parse(require("fs").readFileSync(0));
console.log(JSON.stringify(texts.map((text) => {
  try {
    const at = (width, height) => [...placeholder.pixels(text, width, height)];
    return { ...placeholder.decode(text), small: at(32, 32), large: at(77, 50) };
  } catch (error) {
    return error.message;
  }
})));
"""

IN_PAGE = """
<script>
window.addEventListener("DOMContentLoaded", () => {
  const found = [...document.querySelectorAll("canvas")].map((canvas) => {
    const { width, height } = canvas;
    const pixels = [...canvas.getContext("2d").getImageData(0, 0, width, height).data];
    return { ...Placeholder.decode(canvas.dataset.placeholder), width, height, pixels };
  });
  fetch("/found", { method: "POST", body: JSON.stringify(found) });
});
</script>
"""


def texts(count: int = 24) -> list[str]:
    """Placeholders of images made by code, of several shapes and sizes."""
    sizes = (6, 12, 24, 64)
    return [vqcodec.placeholder(draw(*SHAPES[n % 4], n), size=sizes[n // 4 % 4]) for n in range(count)]


def agrees(text: str, found: dict[str, Any]) -> Placeholder:
    """Check the integers of a text; return what Python decodes."""
    tables = thumbnails.searcher().tables
    ours = decode(text, tables)
    assert (ours.aspect, ours.quality) == (found["aspect"], found["quality"])
    assert ours.symbols.tolist() == found["symbols"]
    assert tables.coefficients(ours.symbols, ours.quality).tolist() == found["coefficients"]
    return ours


def rgb(pixels: list[int], width: int, height: int) -> np.ndarray:
    found = np.array(pixels).reshape(height, width, 4)
    assert np.all(found[..., 3] == 255)
    return found[..., :3]


def test_the_script_has_the_weights_of_the_package() -> None:
    script = (DOCS / "placeholder.js").read_text()
    assert script == BUILD["script"]()
    assert len(script) <= 100_000
    assert not re.search(r"https?://|import |fetch\(|require\(", script), "no dependency, no request"


def test_the_page_in_docs_shows_24_placeholders() -> None:
    page = (DOCS / "placeholders.html").read_text()
    found = re.findall(r'data-placeholder="([^"]+)"', page)
    assert len(found) == 24
    assert page == BUILD["page"]([html.unescape(text) for text in found])
    for text in found:
        assert len(text) <= 32
        vqcodec.placeholder_image(text)


def in_node(given: list[str]) -> list[Any]:
    command = ["node", "-e", IN_NODE, str(DOCS / "placeholder.js")]
    result = subprocess.run(
        command, input=json.dumps(given), capture_output=True, text=True, timeout=60, check=True
    )
    found: list[Any] = json.loads(result.stdout)
    return found


@needs_node
def test_node_draws_the_same() -> None:
    rng = np.random.default_rng(0)
    given = texts()
    given += [pack(0, rng.integers(0, 256, n).astype(np.uint8).tobytes()) for n in range(64)]
    tables = thumbnails.searcher().tables
    for text, found in zip(given, in_node(given), strict=True):
        ours = agrees(text, found)
        assert np.array_equal(rgb(found["small"], 32, 32), render(ours, tables, 32, 32))
        large = render(ours, tables, 77, 50).astype(int)
        assert np.abs(rgb(found["large"], 77, 50) - large).max() <= 1


@needs_node
def test_node_refuses_what_python_refuses() -> None:
    good = texts(1)[0]
    damaged = [good[:n] + ("A" if good[n] != "A" else "B") + good[n + 1 :] for n in range(len(good))]
    damaged += [
        "",
        "A",
        good + "=",
        good[:-1] + "!",
        "A" * 87,
        pack(1, b"abc"),
        pack(0, b"\xff" * 8),
        good[:5],
    ]
    for text, found in zip(damaged, in_node(damaged), strict=True):
        assert isinstance(found, str) and found, text
        with pytest.raises(vqcodec.VqcodecError):
            vqcodec.placeholder_image(text)


class Desk(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and takes what a page posts."""

    posted: queue.Queue[bytes] = queue.Queue()

    def do_POST(self) -> None:  # noqa: N802
        self.posted.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@needs_chromium
def test_chromium_draws_a_page_of_24_images(tmp_path: Path) -> None:
    assert BROWSER is not None
    given, site = texts(), tmp_path / "site"
    site.mkdir()
    page = BUILD["page"](given, width=48)
    (site / "index.html").write_text(page.replace("</html>", f"{IN_PAGE}</html>"))
    shutil.copy(DOCS / "placeholder.js", site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Desk, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [BROWSER, *FLAGS]
    command += ["--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}"]
    command.append(f"http://127.0.0.1:{server.server_port}/")
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = json.loads(Desk.posted.get(timeout=60))
    finally:
        browser.kill()
        browser.wait()
        server.shutdown()
        server.server_close()
    assert len(found) == len(given) == 24
    for text, one in zip(given, found, strict=True):
        ours = agrees(text, one)
        expected = render(ours, thumbnails.searcher().tables, *ours.size(48)).astype(int)
        assert (one["height"], one["width"]) == expected.shape[:2]
        assert np.abs(rgb(one["pixels"], one["width"], one["height"]) - expected).max() <= 1
