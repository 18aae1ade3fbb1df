"""Build the Typer app, and turn everything that ends a command into a message and an exit code."""

import functools
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from . import options
from .console import Console, explain
from .decode import EXAMPLES as DECODE_EXAMPLES
from .decode import decode
from .encode import EXAMPLES as ENCODE_EXAMPLES
from .encode import encode
from .evaluate import EXAMPLES as EVALUATE_EXAMPLES
from .evaluate import evaluate
from .info import EXAMPLES as INFO_EXAMPLES
from .info import info
from .inspect import EXAMPLES as INSPECT_EXAMPLES
from .inspect import inspect
from .models import EXAMPLES as MODELS_EXAMPLES
from .models import models
from .placeholder import EXAMPLES as PLACEHOLDER_EXAMPLES
from .placeholder import placeholder
from .sample import EXAMPLES as SAMPLE_EXAMPLES
from .sample import sample
from .streams import OutputError, flush_out, silence
from .train import EXAMPLES as TRAIN_EXAMPLES
from .train import train

# Where Typer keeps this class differs between versions; where it keeps its subclass does not.
UsageException: Any = typer.BadParameter.__mro__[1]
INTERRUPTED = 130

WELCOME = """\
vqcodec {version}  neural image and audio codec

  vqcodec encode photo.png song.wav      -> photo.vqc, song.vqc
  vqcodec decode photo.vqc               -> photo.decoded.png
  vqcodec info photo.vqc
  vqcodec models
  vqcodec evaluate kodak/
  vqcodec sample -m vqvae-image -o samples.png
  vqcodec placeholder photo.jpg
  vqcodec train photos/ -m vqvae-image

Commands: encode  decode  info  models  evaluate  sample  placeholder  train  inspect
Try 'vqcodec COMMAND -h'."""


class Program(TyperGroup):
    """Group of commands that prints usage errors in the form of every other message."""

    def main(
        self, args: Sequence[str] | None = None, *rest: Any, standalone_mode: Any = True, **extra: Any
    ) -> Any:
        """Run a command; in standalone mode, exit with its exit code."""
        call = functools.partial(super().main, args, *rest, **{**extra, "prog_name": "vqcodec"})
        if not standalone_mode:
            return call(standalone_mode=False)
        try:
            code = call(standalone_mode=False)
            flush_out()
        except BrokenPipeError:
            code = 1
        except (OutputError, OSError) as error:
            # All other errors of the system have become exit codes: it was stdout that failed.
            message, _, code = explain(error.error if isinstance(error, OutputError) else error)
            Console().error(None, f"cannot write to stdout: {message}", "free some space, or write elsewhere")
        except UsageException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "vqcodec"
            message = error.format_message().rstrip(".")
            Console().error(None, message[:1].lower() + message[1:], _hint(error, command))
            code = 2
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        try:
            flush_out()
        except (OutputError, OSError, ValueError):
            silence(sys.stdout)
        sys.exit(code if isinstance(code, int) else 0)


def _hint(error: object, command: str) -> str:
    name = getattr(error, "option_name", None)
    if command == "vqcodec" and name is not None:
        return f"options come after the command: vqcodec COMMAND {name}"
    return f"see '{command} -h'"


app = typer.Typer(
    cls=Program,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True, epilog="Try 'vqcodec COMMAND -h' for options and examples.")
def root(context: typer.Context, version: options.Version = False) -> None:
    """Neural codec: compress images and audio to .vqc files and back, with models that you can train."""
    if context.invoked_subcommand is None:
        from importlib.metadata import version as version_of

        typer.echo(WELCOME.format(version=version_of("vqcodec")))


app.command(epilog=ENCODE_EXAMPLES)(encode)
app.command(epilog=DECODE_EXAMPLES)(decode)
app.command(epilog=INFO_EXAMPLES)(info)
app.command(epilog=MODELS_EXAMPLES)(models)
app.command(epilog=EVALUATE_EXAMPLES)(evaluate)
app.command(epilog=SAMPLE_EXAMPLES)(sample)
app.command(epilog=PLACEHOLDER_EXAMPLES)(placeholder)
app.command(epilog=TRAIN_EXAMPLES)(train)
app.command(epilog=INSPECT_EXAMPLES)(inspect)


def _interrupt(_number: int, _frame: object) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        signal.raise_signal(signal.SIGINT)
        return
    # Programs that a shell starts in the background ignore Ctrl-C, and must still end on SIGTERM.
    raise KeyboardInterrupt


def run() -> None:
    """Entry point of the `vqcodec` command."""
    try:
        _prepare()
        app()
    except KeyboardInterrupt:  # before a command began, while Typer builds them all
        sys.exit(INTERRUPTED)


def _prepare() -> None:
    """Set up streams, threads and signals."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is printed escaped instead of ending the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # numpy's products are small here: threads would wait for each other. Torch has its own, see --jobs.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A thread that waits gives its core away, which other programs and workers need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # These do what Ctrl-C does: no partial output, and a training run that is saved.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # A hangup that is ignored, as under nohup, stays ignored.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
