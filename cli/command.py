"""Give every command the options that all of them have, and the console that these set up."""

import functools
import inspect
from collections.abc import Callable

from . import options
from .console import Console


def command(*, progress: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command whose first parameter is a `Console`.

    Typer sees the other parameters, followed by those of `_shared`.

    Args:
        progress: whether the command shows a progress bar, which --no-progress turns off.
    """

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(run)
        def wrapped(**given: object) -> None:
            settings = {name: given.pop(name) for name in shared if name in given}
            settings.pop("version", None)
            shown = progress and not settings.pop("no_progress", False)
            with Console(**settings, progress=shown) as console:  # type: ignore[arg-type]
                run(console, **given)

        shared = dict(inspect.signature(_shared).parameters)
        if not progress:
            del shared["no_progress"]
        signature = inspect.signature(run)
        _, *own = signature.parameters.values()
        parameters = [*own, *shared.values()]
        wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapped

    return decorate


def _shared(
    no_progress: options.NoProgress = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
    json: options.Json = False,
    color: options.ColorWhen = options.Color.auto,
    version: options.Version = False,
) -> None:
    """Declare the options of every command."""
