"""Print messages, JSON lines, tables and progress, as colour and verbosity options ask."""

import errno
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

import typer
from vqcodec.errors import VqcodecError, VqcodecWarning

from .options import Color
from .streams import OutputError, print_error, print_out

if TYPE_CHECKING:
    from rich.progress import Progress

RED, YELLOW, BOLD, DIM = "31;1", "33", "1", "2"
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}


class Console:
    """Print for a command: results on stdout, everything else on stderr.

    As a context manager, turn exceptions of a command into a message and an exit code.

    Args:
        verbose: 0, 1 (a line per stage), 2 (timings and tracebacks).
        quiet: errors only.
        json: stdout carries one JSON object per line and nothing else.
        color: when to colour.
        progress: draw a progress bar if stderr is a terminal.
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
        self.last: Callable[[bool], object] = lambda interrupted: None
        """What a command prints when something ends it early: whether that is an interruption."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, typer.Exit | BrokenPipeError | OutputError):
            failure = Failure.of(error)
            self.record(type="error", error=failure.message, hint=failure.hint)
            self.fail(None, failure)
            self.last(False)
            raise typer.Exit(failure.code) from error
        if isinstance(error, KeyboardInterrupt):
            self.last(True)

    def fail(self, name: str | None, failure: "Failure") -> None:
        """Print a failure as a message and a hint."""
        self.error(name, failure.message, failure.hint)
        if self.verbose >= 2:
            print_error("\n".join(printable(line) for line in failure.trace.rstrip().split("\n")))

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
        """Print one line of a result on stdout; nothing with --json."""
        if not self.json:
            painted = self._colored(sys.stdout) and style
            text = printable(text)
            print_out(f"\x1b[{style}m{text}\x1b[0m" if painted else text)

    def record(self, **fields: object) -> None:
        """Print one JSON object on stdout, with null for infinite numbers; nothing without --json."""
        if self.json:
            written = {key: finite(value) for key, value in fields.items()}
            print_out(json.dumps(written, default=str), flush=True)

    def table(self, rows: Sequence[Mapping[str, object]], columns: Mapping[str, str]) -> None:
        """Print rows on stdout in aligned columns (key -> heading), numbers to the right."""
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
    def bar(self, verb: str, total: float | None) -> Iterator["Bar"]:
        """Show a progress bar over `total` items, or an unknown number, on a terminal only."""
        if not self.progress:
            yield Bar()
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        progress = Progress(
            TextColumn("{task.description}", markup=False),
            TextColumn(
                "{task.fields[item]}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            BarColumn(bar_width=16),
            TimeRemainingColumn(),
            TextColumn("left", markup=False),
            # Rich's own test for a terminal is misled by FORCE_COLOR; ours was made above.
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
            # A training run reports progress only every few seconds.
            speed_estimate_period=600,
        )
        with progress:
            yield TerminalBar(progress, verb, total)

    def paint(self, text: str, style: str) -> str:
        """Return the text in a style if stderr is coloured."""
        return f"\x1b[{style}m{text}\x1b[0m" if self._colored(sys.stderr) else text

    def _colored(self, stream: TextIO | None) -> bool:
        if self.color is not Color.auto:
            return self.color is Color.always
        return is_terminal(stream) and not os.environ.get("NO_COLOR") and not dumb()

    @staticmethod
    def _say(*parts: str) -> None:
        print_error("".join(parts))


class Bar:
    """Ignore progress."""

    def item(self, number: float, name: str) -> None:
        """Report that work on item `number` (from 0) begins."""

    def part(self, done: int, total: int) -> None:
        """Report how many parts of the current item are done."""

    def share(self, done: float) -> None:
        """Report the share of the current item that is done, 0 to 1."""

    def total(self, count: int) -> None:
        """Report the number of items, once it is known."""


class TerminalBar(Bar):
    """Show progress on a terminal."""

    def __init__(self, progress: "Progress", verb: str, total: float | None) -> None:
        self._progress, self._verb, self._total = progress, verb, total
        self._number: float = 0
        self._name = ""
        self._task = progress.add_task(verb, total=total, item="")

    def item(self, number: float, name: str) -> None:
        """Report that work on item `number` (from 0) begins."""
        self._number, self._name = number, printable(name)
        whole = f"/{int(self._total)}" if self._total else ""
        count = "" if self._total == 1 else f"  {int(number) + 1}{whole}"
        self._progress.update(
            self._task, completed=number, description=self._verb + count, item=self._name, refresh=True
        )

    def part(self, done: int, total: int) -> None:
        """Report how many parts of the current item are done."""
        if total > 1:
            self._progress.update(self._task, item=f"{self._name}  part {done}/{total}")
        self.share(done / total if total else 1.0)

    def share(self, done: float) -> None:
        """Report the share of the current item that is done, 0 to 1."""
        self._progress.update(self._task, completed=self._number + done)

    def total(self, count: int) -> None:
        """Report the number of items, once it is known."""
        self._total = count
        self._progress.update(self._task, total=count)


@dataclass(frozen=True)
class Failure:
    """An exception in words: message, hint, exit code, traceback."""

    message: str
    hint: str
    code: int
    trace: str = ""

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """Put an exception into words."""
        return cls(*explain(error), "".join(traceback.format_exception(error)))


def explain(error: BaseException) -> tuple[str, str, int]:
    """Return the message, the hint and the exit code of an exception."""
    if isinstance(error, VqcodecError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, FileNotFoundError):
        return "no such file", "check the name", 1
    if isinstance(error, PermissionError):
        return "permission denied", "see who may read and write there: ls -l", 1
    if isinstance(error, IsADirectoryError):
        return "is a folder", "name a file", 1
    if isinstance(error, OSError):
        if error.errno in OUT_OF_SPACE:
            return "no space left", "free some space, or write elsewhere with -o", 1
        return (error.strerror or str(error)).lower(), "check the name and the disk", 1
    if type(error).__name__ == "OutOfMemoryError":
        return "out of memory on the accelerator", "use the CPU with --device cpu", 1
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "out of memory", "close other programs, or use one thread with -j 1", 1
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"internal error: {what}", f"report it{address()}, with the traceback that -vv prints", 3


def address() -> str:
    """Return where to report a bug, from the metadata of the package."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        links = metadata("vqcodec").get_all("Project-URL") or []
    except PackageNotFoundError:
        links = []
    places = [link.partition(",")[2].strip() for link in links if link.lower().startswith(("issue", "bug"))]
    return f" at {places[0]}" if places else " to the distributor of vqcodec"


def printable(text: str) -> str:
    """Escape control characters and undecodable bytes, so that names cannot control the terminal."""
    if text.isprintable():
        return text
    spaces = "\u00a0\u2009\u202f\u3000"
    return "".join(c if c.isprintable() or c in spaces else c.encode("unicode_escape").decode() for c in text)


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream is a terminal."""
    return bool(stream is not None and stream.isatty())


def dumb() -> bool:
    """Tell whether the terminal supports plain text only."""
    return os.environ.get("TERM") == "dumb"


def cell(value: object) -> str:
    """Format one value of a table."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2g}" if abs(value) < 0.01 else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
    return str(value)


def finite(value: object) -> object:
    """Return the value, or None for infinity and NaN, which JSON lacks, such as the PSNR of equal images."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def size_text(count: float) -> str:
    """Format bytes as "812 B", "25.4 kB", "312 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"


def time_text(seconds: float) -> str:
    """Format seconds as "2.1 s", "4 min 12 s", "1 h 02 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clock_text(seconds: float) -> str:
    """Format the length of audio as "0:07.2", "3:07.2", "1:02:03.4"."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{tenths // 10:02d}.{tenths % 10}"


@contextmanager
def printed_warnings(console: Console) -> Iterator[None]:
    """Print the warnings of this package as they come, each once."""

    def show(message: Warning | str, *_where: object, **_more: object) -> None:
        console.warning(None, str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("once", VqcodecWarning)
        warnings.showwarning = show
        yield
