"""Everything printed: messages, JSON lines, tables, progress; colour and verbosity are decided here."""

import errno
import json
import math
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import typer
from vqcodec.errors import VqcodecError

from .options import Color

RED, YELLOW, BOLD, DIM = "31;1", "33", "1", "2"
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}


class Console:
    """Where a command prints: results on stdout, everything else on stderr.

    As a context manager it turns what a command raises into a message and an exit code.

    Args:
        verbose: 0, 1 (a line per stage), 2 (timings and tracebacks).
        quiet: errors only.
        json: stdout carries one JSON object per line and nothing else.
        color: when to colour.
        progress: whether a bar may be drawn, should stderr be a terminal.
    """

    def __init__(
        self,
        *,
        verbose: int = 0,
        quiet: bool = False,
        json: bool = False,
        color: Color = Color.auto,
        progress: bool = True,
    ) -> None:
        self.verbose, self.quiet, self.json, self.color = verbose, quiet, json, color
        self.progress = progress and not quiet and not json and is_terminal(sys.stderr) and not dumb()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, typer.Exit | BrokenPipeError):
            message, hint, _ = explain(error)
            self.record(type="error", error=message, hint=hint)
            raise typer.Exit(self.fail(None, error)) from error

    def fail(self, name: str | None, error: Exception) -> int:
        """Print an exception in two lines, what and what to do; return its exit code."""
        message, hint, code = explain(error)
        self.error(name, message, hint)
        if self.verbose >= 2:
            print("".join(traceback.format_exception(error)).rstrip(), file=sys.stderr)
        return code

    def error(self, name: str | None, message: str, hint: str = "") -> None:
        """Print `vqcodec: FILE: what is wrong` and `  hint: what to do`."""
        place = "" if name is None else f"{printable(name)}: "
        self._say(self.paint("vqcodec:", RED), f" {place}{printable(message)}")
        if hint:
            self._say(self.paint("  hint:", DIM), f" {printable(hint)}")

    def warning(self, name: str | None, message: str) -> None:
        """Print a warning about one file, unless quiet."""
        if not self.quiet:
            place = "" if name is None else f"{printable(name)}: "
            self._say(self.paint("warning:", YELLOW), f" {place}{printable(message)}")

    def note(self, text: str, level: int = 0) -> None:
        """Print a line on stderr, unless quiet or not verbose enough."""
        if not self.quiet and self.verbose >= level:
            self._say(printable(text))

    def out(self, text: str, style: str = "") -> None:
        """Print one line of a result on stdout; left out with --json."""
        if not self.json:
            painted = self._colored(sys.stdout) and style
            text = printable(text)
            print(f"\x1b[{style}m{text}\x1b[0m" if painted else text)

    def record(self, **fields: Any) -> None:
        """Print one JSON object on stdout, numbers that are not finite as null; left out without --json."""
        if self.json:
            written = {key: finite(value) for key, value in fields.items()}
            print(json.dumps(written, default=str), flush=True)

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
        """Print rows on stdout, columns (key -> heading) aligned: numbers and their headings to the right."""
        cells = [[cell(row.get(key)) for key in columns] for row in rows]
        right = [
            any(isinstance(row.get(key), int | float) for row in rows)
            and not any(isinstance(row.get(key), str) and row[key] for row in rows)
            for key in columns
        ]
        lines = [list(columns.values()), *cells]
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
        for number, line in enumerate(lines):
            padded = (
                text.rjust(width) if to_right else text.ljust(width)
                for text, width, to_right in zip(line, widths, right, strict=True)
            )
            self.out("  ".join(padded).rstrip(), BOLD if number == 0 else "")

    @contextmanager
    def bar(self, verb: str, total: float) -> Iterator["Bar"]:
        """A progress bar over `total` items, drawn on a real terminal only."""
        if not self.progress:
            yield Bar()
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        drawn = Progress(
            TextColumn("{task.description}", markup=False),
            TextColumn(
                "{task.fields[item]}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            BarColumn(bar_width=16),
            TimeRemainingColumn(),
            TextColumn("left", markup=False),
            # Rich's own test for a terminal is fooled by FORCE_COLOR; ours has been made.
            console=RichConsole(
                file=sys.stderr,
                force_terminal=True,
                no_color=not self._colored(sys.stderr),
                markup=False,
                highlight=False,
                soft_wrap=True,
            ),
            redirect_stdout=False,
            expand=True,
            transient=True,
            # A training tells its progress once in many seconds.
            speed_estimate_period=600,
        )
        with drawn:
            yield DrawnBar(drawn, verb, total)

    def paint(self, text: str, style: str) -> str:
        """The text in a style where stderr is coloured."""
        return f"\x1b[{style}m{text}\x1b[0m" if self._colored(sys.stderr) else text

    def _colored(self, stream: Any) -> bool:
        if self.color is not Color.auto:
            return self.color is Color.always
        return is_terminal(stream) and not os.environ.get("NO_COLOR") and not dumb()

    @staticmethod
    def _say(*parts: str) -> None:
        print("".join(parts), file=sys.stderr)


class Bar:
    """Progress that nobody sees."""

    def item(self, number: float, name: str) -> None:
        """Say that item `number` (from 0) is being worked on."""

    def part(self, done: int, total: int) -> None:
        """Say how many parts of the present item are done."""

    def share(self, done: float) -> None:
        """Say how much of the present item is done, 0 to 1."""


class DrawnBar(Bar):
    """Progress on a terminal."""

    def __init__(self, drawn: Any, verb: str, total: float) -> None:
        self._drawn, self._verb, self._total = drawn, verb, total
        self._number: float = 0
        self._name = ""
        self._task = drawn.add_task(verb, total=total, item="")

    def item(self, number: float, name: str) -> None:
        """Say that item `number` (from 0) is being worked on."""
        self._number, self._name = number, printable(name)
        count = f"  {int(number) + 1}/{int(self._total)}" if self._total > 1 else ""
        self._drawn.update(
            self._task, completed=number, description=self._verb + count, item=self._name, refresh=True
        )

    def part(self, done: int, total: int) -> None:
        """Say how many parts of the present item are done."""
        if total > 1:
            self._drawn.update(self._task, item=f"{self._name}  part {done}/{total}")
        self.share(done / total if total else 1.0)

    def share(self, done: float) -> None:
        """Say how much of the present item is done, 0 to 1."""
        self._drawn.update(self._task, completed=self._number + done)


def explain(error: BaseException) -> tuple[str, str, int]:
    """What is wrong, what to do, and the exit code."""
    if isinstance(error, VqcodecError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, FileNotFoundError):
        return "no such file", "", 1
    if isinstance(error, PermissionError):
        return "permission denied", "", 1
    if isinstance(error, IsADirectoryError):
        return "is a folder", "", 1
    if isinstance(error, OSError):
        if error.errno in OUT_OF_SPACE:
            return "no space left", "free some, or -o elsewhere", 1
        return (error.strerror or str(error)).lower(), "", 1
    if type(error).__name__ == "OutOfMemoryError":
        return "out of memory on the accelerator", "--device cpu", 1
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "out of memory", "close other programs, or -j 1", 1
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"internal error: {what}", f"-vv prints the traceback; report it{address()}", 3


def address() -> str:
    """Where to report a bug, as the package's metadata says it."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        links = metadata("vqcodec").get_all("Project-URL") or []
    except PackageNotFoundError:
        links = []
    places = [link.partition(",")[2].strip() for link in links if link.lower().startswith(("issue", "bug"))]
    return f" at {places[0]}" if places else " to whom you have vqcodec from"


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes made visible, so that names cannot paint."""
    if text.isprintable():
        return text
    spaces = "\u00a0\u2009\u202f\u3000"
    return "".join(c if c.isprintable() or c in spaces else c.encode("unicode_escape").decode() for c in text)


def is_terminal(stream: Any) -> bool:
    """Whether a person is looking."""
    return bool(stream is not None and stream.isatty())


def dumb() -> bool:
    """Whether the terminal cannot do more than print."""
    return os.environ.get("TERM") == "dumb"


def cell(value: Any) -> str:
    """One value of a table."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2g}" if abs(value) < 0.01 else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
    return str(value)


def finite(value: Any) -> Any:
    """The value, or None for a number that JSON has no word for, such as the PSNR of no error."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def size_text(count: float) -> str:
    """Bytes as "812 B", "25.4 kB", "312 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"


def time_text(seconds: float) -> str:
    """Seconds as "2.1 s", "4 min 12 s", "1 h 02 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clock_text(seconds: float) -> str:
    """The length of a sound as "0:07.2", "3:07.2", "1:02:03.4"."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{tenths // 10:02d}.{tenths % 10}"
