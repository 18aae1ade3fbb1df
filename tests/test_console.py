import errno
import io
import json
import sys

import pytest
import typer
from vqcodec.cli.console import (
    Bar,
    Console,
    TerminalBar,
    address,
    cell,
    clock_text,
    explain,
    printable,
    size_text,
    time_text,
)
from vqcodec.cli.options import Color
from vqcodec.errors import DamagedError, UsageError


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def attach(monkeypatch):
    """A function that makes stderr a terminal; not done here, for pytest replaces stderr before each test."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def attach():
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return attach


def test_color_on_a_terminal_and_what_turns_it_off(attach, monkeypatch):
    attach()

    def painted(**options):
        return "\x1b[" in Console(**options).paint("x", "31")

    assert painted()
    assert not painted(color=Color.never)
    monkeypatch.setenv("NO_COLOR", "")
    assert painted()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not painted()
    assert painted(color=Color.always)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not painted()


def test_bar_is_drawn_on_a_real_terminal_only(attach, monkeypatch):
    attach()

    def drawn(**options):
        with Console(**options).bar("encoding", 3) as bar:
            bar.item(0, "a.png")
            bar.part(1, 2)
        return isinstance(bar, TerminalBar)

    assert drawn()
    assert not drawn(progress=False)
    assert not drawn(quiet=True)
    assert not drawn(json=True)
    monkeypatch.setenv("TERM", "dumb")
    assert not drawn()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not drawn()
    with Console().bar("x", 1) as bar:
        assert type(bar) is Bar


def test_bar_shows_names_as_they_are_and_messages_survive(attach):
    terminal = attach()
    console = Console(color=Color.never)
    with console.bar("encoding", 3) as bar:
        bar.item(1, "a[bold].png")
        bar.part(3, 48)
        bar.share(0.5)
        console.warning("b[red].png", "something [bold]")
    assert "encoding  2/3" in terminal.getvalue()
    assert "a[bold].png" in terminal.getvalue()
    assert "warning: b[red].png: something [bold]" in terminal.getvalue()


def test_results_stay_on_stdout_while_a_bar_is_drawn(attach, capsys):
    terminal = attach()
    console = Console()
    with console.bar("evaluating", 1) as bar:
        bar.item(0, "a")
        console.out("a result")
    assert "a result\n" in capsys.readouterr().out
    assert "a result" not in terminal.getvalue()


def test_errors_become_messages_and_exit_codes(capsys):
    for error, code in (
        (UsageError("no", "do"), 2),
        (DamagedError("broken"), 1),
        (KeyError("x"), 3),
        (PermissionError(errno.EACCES, "Permission denied"), 1),
    ):
        with pytest.raises(typer.Exit) as caught, Console():
            raise error
        assert caught.value.exit_code == code
    told = capsys.readouterr().err.splitlines()
    assert told[:3] == ["vqcodec: no", "  hint: do", "vqcodec: broken"]
    assert told[3].startswith("  hint: copy the file again")
    assert told[4].startswith("vqcodec: internal error: KeyError")
    assert told[6] == "vqcodec: permission denied"


def test_interruptions_and_exits_pass():
    for error in (KeyboardInterrupt(), typer.Exit(7), BrokenPipeError()):
        with pytest.raises(type(error)) as caught, Console():
            raise error
        assert caught.value is error


def test_json_error_record(capsys):
    with pytest.raises(typer.Exit), Console(json=True):
        raise UsageError("no", "do")
    assert json.loads(capsys.readouterr().out) == {"type": "error", "error": "no", "hint": "do"}


def test_json_keeps_text_off_stdout(capsys):
    console = Console(json=True)
    console.out("text")
    console.table([{"a": 1}], {"a": "A"})
    console.record(a=1)
    assert capsys.readouterr().out == '{"a": 1}\n'
    Console().record(a=1)
    assert capsys.readouterr().out == ""


def test_table_alignment(capsys):
    rows = [{"name": "a", "n": 5, "x": 28.713}, {"name": "long", "n": None, "x": 0.38}]
    Console().table(rows, {"name": "name", "n": "number", "x": "x"})
    assert capsys.readouterr().out == "name  number       x\na          5   28.71\nlong       -  0.3800\n"


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left", 1),
        (OSError(errno.EIO, "Input/output error"), "input/output error", 1),
        (MemoryError(), "out of memory", 1),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory", 1),
        (OutOfMemoryError("CUDA out of memory"), "out of memory on the accelerator", 1),
        (RuntimeError("other"), "internal error: RuntimeError: other", 3),
    ],
)
def test_explanations(error, message, code):
    assert (explain(error)[0], explain(error)[2]) == (message, code)


def test_report_address_comes_from_the_metadata(monkeypatch):
    class Links:
        def get_all(self, key):
            return ["Home, https://a", "Issues, https://a/issues"]

    monkeypatch.setattr("importlib.metadata.metadata", lambda name: Links())
    assert address() == " at https://a/issues"


def test_texts():
    assert [size_text(n) for n in (0, 812, 999, 25_410, 312_000_000, 5e9)] == [
        *("0 B", "812 B", "999 B", "25.4 kB", "312 MB", "5.0 GB")
    ]
    assert [time_text(s) for s in (2.13, 59.96, 252, 3720)] == [
        "2.1 s",
        "1 min 00 s",
        "4 min 12 s",
        "1 h 02 min",
    ]
    assert [cell(v) for v in (None, 3, 3.5, 0.98766, 123.456, 0.00123, "x")] == [
        "-",
        "3",
        "3.5000",
        "0.9877",
        "123.46",
        "0.0012",
        "x",
    ]
    assert [clock_text(s) for s in (0, 1, 59.96, 187.2, 3723.44)] == [
        "0:00.0",
        "0:01.0",
        "1:00.0",
        "3:07.2",
        "1:02:03.4",
    ]
    assert printable("a\x1b[1m\n\udcff é") == "a\\x1b[1m\\n\\udcff é"
