"""Check the settings of a run, and take those of --set into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches

from ..errors import UsageError
from ..models.base import Model
from ..priors.settings import Config, TrainConfig

__all__ = ["CROPS", "TrainConfig", "check", "held_out_share", "overridden"]

CROPS: dict[str, tuple[float, float]] = {"image": (4, 1 << 14), "audio": (0.1, 60)}
"""Medium -> the smallest and the largest crop."""


def overridden(
    config: Config, settings: TrainConfig, overrides: Mapping[str, str], settable: set[str], where: str
) -> tuple[Config, TrainConfig]:
    """Settings of the model and of the training with those of --set.

    Args:
        config: of what is trained.
        settings: of the training.
        overrides: setting -> its value as text.
        settable: those of the model that may be set.
        where: ends the message about others.

    Raises:
        UsageError: no such setting, or no value of it.
    """
    of_training = {f.name for f in fields(settings)}
    for key, text in overrides.items():
        if key in settable:
            config = config.with_texts({key: text})
        elif key in of_training:
            settings = settings.with_texts({key: text})
        else:
            known = sorted(settable | of_training)
            close = get_close_matches(key, known, n=1)
            hint = f"is it {close[0]}?" if close else f"give one of {', '.join(known)}"
            raise UsageError(f"no setting '{key}'{where}", hint)
    return config, settings


def held_out_share(validation: str) -> float | None:
    """The share of the files that `TrainConfig.validation` states; None: it names a folder or tar file."""
    try:
        return float(validation)
    except ValueError:
        return None


def check(config: Config, settings: TrainConfig, kind: type[Model], *, starts: bool) -> None:
    """Refuse what would fail hours later, or without a word about its cause.

    Args:
        config: of what is trained.
        settings: of the training.
        kind: class of the codec, whose crops these are.
        starts: whether a codec is trained from weights of one.

    Raises:
        UsageError: a setting out of its range.
    """
    config.check()
    settings.check()
    if settings.start_weight and not starts:
        raise UsageError("start_weight is for a codec that begins from weights", "--from NAME --stage codec")
    low, high = CROPS[kind.medium]
    if not low <= settings.crop <= high:
        raise UsageError(f"crop is {settings.crop}", f"give {low:g} to {high:g}")
    if kind.axes == 2 and settings.crop % kind.stride:  # crops of one axis are seconds
        raise UsageError(f"crop is {settings.crop:g}", f"give a multiple of {kind.stride}")
    share = held_out_share(settings.validation)
    if share is not None and not 0 < share < 1:
        raise UsageError(f"--validation {settings.validation}", "a folder, or a share between 0 and 1")
