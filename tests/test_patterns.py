"""No pattern over untrusted text, and no reader of metadata, takes more than linear time."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from media_files import encoded, photo, pil, png, png_chunk
from vqcodec import media
from vqcodec.errors import MediaError
from vqcodec.media import xmp
from vqcodec.media.metadata import clean_exif

ROOT = Path(__file__).parents[1]
CALLS = {"compile", "match", "search", "fullmatch", "sub", "findall", "split", "finditer"}
ANCHORED = {"xmp.py:_ATTRIBUTE", "options.py:parts"}
"""Patterns that are matched at a position, or searched for only in text of their own form."""

GROWTH = 8
"""Times the size; quadratic time would take 64 times as long."""
START = 4000


def patterns() -> Iterator[tuple[str, str | bytes, str]]:
    """Where, pattern and function of each pattern in the package, compiled or given to a function of re."""
    for folder in ("codec", "cli"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            names = {
                id(node.value): node.targets[0].id
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            }
            for node in ast.walk(tree):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                if ast.unparse(node.func.value) == "re" and node.func.attr in CALLS:
                    assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno}: not a literal"
                    where = f"{path.name}:{names.get(id(node), node.lineno)}"
                    yield where, node.args[0].value, node.func.attr


PATTERNS = [*patterns()]


def runs(pattern: str | bytes) -> list[str | bytes]:
    """What such a pattern may stumble over: runs of what it repeats, ever new beginnings of what it wants."""
    source = pattern.decode("latin-1") if isinstance(pattern, bytes) else pattern
    literal = re.sub(r"\\x[0-9a-f]{2}|\\[a-zA-Z]|[\[\](){}?*+|^$\\]", "", source)
    found = [*" a1<>='.-", '"', "\n", "\xff", "\0", "A1.", "1 ", " a", '<a="', "<a ", "\xff\xff\0"]
    found += [literal, literal[: len(literal) // 2], *(literal[i : i + 3] for i in range(0, len(literal), 3))]
    kept = [run for run in dict.fromkeys(found) if run]
    return [run.encode("latin-1", "replace") for run in kept] if isinstance(pattern, bytes) else kept


def seconds(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def assert_linear(make: Callable[[int], Callable[[], object]], what: str) -> None:
    """Compare the time of one size with that of GROWTH times as much; more tries forgive a busy machine."""
    for _ in range(3):
        small, large = seconds(make(START)), seconds(make(GROWTH * START))
        if large < GROWTH * 2.5 * small + 0.004:
            return
    raise AssertionError(f"{what}: {small:.4f} s, {GROWTH} times the size {large:.4f} s")


def test_the_walk_finds_patterns() -> None:
    assert len(PATTERNS) > 8
    assert {"xmp.py", "header.py", "jpeg.py"} <= {where.split(":")[0] for where, *_ in PATTERNS}
    assert {where for where, *_ in PATTERNS} >= ANCHORED


def test_a_quadratic_pattern_would_be_found() -> None:
    quadratic = re.compile(r"\s+x")
    with pytest.raises(AssertionError):
        assert_linear(lambda size: lambda: quadratic.search(" " * (size // 4)), "spaces")


@pytest.mark.parametrize(("where", "pattern", "call"), PATTERNS, ids=[where for where, *_ in PATTERNS])
def test_every_pattern_takes_linear_time(where: str, pattern: str | bytes, call: str) -> None:
    compiled = re.compile(pattern)
    calls = ("match",) if where in ANCHORED else ("search", "fullmatch") if call == "compile" else (call,)
    for run in runs(pattern):
        for name in calls:

            def make(size: int, run: str | bytes = run, name: str = name) -> Callable[[], object]:
                text = run * (size // len(run))
                work = getattr(compiled, "search" if name == "sub" else name)
                return lambda: work(text)

            assert_linear(make, f"{where} {name} over {run[:20]!r}")


PACKETS: dict[str, Callable[[int], bytes]] = {
    "spaces": lambda n: b"<a>" + b" " * n + b"</a>",
    "spaces in a tag": lambda n: b"<a " + b" " * n + b' b="c"/>',
    "a long name": lambda n: b"<" + b"a" * n + b"/>",
    "a long value": lambda n: b'<a b="' + b" a=" * (n // 3) + b'"/>',
    "elements": lambda n: b"<a>" + b"<b c='d'/>" * (n // 10) + b"</a>",
    "attributes": lambda n: b"<a " + b"".join(b"a%d='1' " % i for i in range(n // 10)) + b"/>",
    "orientations": lambda n: b"<a>" + b"<t:Orientation>6</t:Orientation>" * (n // 30) + b"</a>",
    "positions": lambda n: b"<a>" + b"<e:GPSLatitude>4</e:GPSLatitude>" * (n // 30) + b"</a>",
    "nested positions": lambda n: b"<e:GPSInfo>" * (n // 20) + b"</e:GPSInfo>" * (n // 20),
    "deep": lambda n: b"<a>" * (n // 7) + b"</a>" * (n // 7),
    "never closed": lambda n: b"<GPS" * (n // 4),
    "a wide declaration": lambda n: ("<?xml " + " " * n + "?><a/>").encode("utf-16-le"),
}


@pytest.mark.parametrize("kind", PACKETS)
def test_cleaning_xmp_takes_linear_time(kind: str) -> None:
    def make(size: int) -> Callable[[], object]:
        data = PACKETS[kind](size)

        def work() -> None:
            with contextlib.suppress(ValueError):
                xmp.clean_xmp(data, 5, 7)
            with contextlib.suppress(ValueError):
                xmp.xmp_orientation(data)

        return work

    assert_linear(make, kind)


def test_cleaning_exif_takes_linear_time() -> None:
    def make(size: int) -> Callable[[], object]:
        entry = struct.pack("<HHII", 40000, 7, size // 2, 8)
        data = b"II*\0\x08\0\0\0" + struct.pack("<H", size // 12) + entry * (size // 12) + bytes(4)

        def work() -> None:
            with contextlib.suppress(ValueError):
                clean_exif(data, 5, 7)

        return work

    assert_linear(make, "entries that overlap")


JPEG = encoded(pil(photo(8, 8)), "JPEG")
GIF = encoded(pil(photo(8, 8)), "GIF")
AVIF = b"\0\0\0\x14ftypavif\0\0\0\0avif"


def png_with(name: bytes, data: bytes, count: int = 1) -> bytes:
    return png(1, 1, 8, 0, b"\0", *[png_chunk(name, data)] * count)


def international(text: bytes) -> bytes:
    return b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text)


def meta(content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 12) + b"meta" + bytes(4) + content


FILES: dict[str, Callable[[int], bytes]] = {
    "PNG of many chunks": lambda n: png_with(b"tEXt", b"a\0", n // 14),
    "PNG of a raw profile": lambda n: png_with(b"tEXt", b"Raw profile type exif\0\nexif\n9\n" + b"\n" * n),
    "PNG of deflated spaces": lambda n: png_with(b"iTXt", international(b"<a " + b" " * n + b"/>")),
    "JPEG of many segments": lambda n: JPEG[:2] + b"\xff\xfe\0\3 " * (n // 5) + JPEG[2:],
    "JPEG of fill bytes": lambda n: JPEG[:2] + b"\xff" * n + JPEG[2:],
    "JPEG of fill bytes in its scan": lambda n: JPEG[:-2] + b"\xff" * n + b"\0" + JPEG[-2:],
    "JPEG of restarts": lambda n: JPEG[:-2] + b"\xff\xd0" * (n // 2) + JPEG[-2:],
    "JPEG of scans": lambda n: JPEG[:-2] + b"\xff\xda\0\2" * (n // 4) + JPEG[-2:],
    "JPEG with a tail": lambda n: JPEG + b"ftyp" * (n // 4),
    "GIF of many blocks": lambda n: GIF[:-1] + b"!\xfe\1a\0" * (n // 5) + b";",
    "boxes": lambda n: AVIF + b"\0\0\0\x08free" * (n // 8),
    "boxes in meta": lambda n: AVIF + meta(b"\0\0\0\x08iprp" * (n // 8)),
}


@pytest.mark.filterwarnings("ignore::vqcodec.errors.MediaWarning")
@pytest.mark.parametrize("kind", FILES)
def test_reading_takes_linear_time(kind: str) -> None:
    def make(size: int) -> Callable[[], object]:
        data = FILES[kind](size)

        def work() -> None:
            with contextlib.suppress(MediaError):
                media.read_image(io.BytesIO(data))

        return work

    assert_linear(make, kind)
