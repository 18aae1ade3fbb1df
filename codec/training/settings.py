"""Settings of a training: their defaults, their ranges, and their values out of text and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_type_hints

from ..errors import UsageError
from ..models import CLASSES, PRIORS, RANGES, ppca, vae
from ..models.vqvae import ImageVQVAE, image, wavenet

_MANY, _TINY = 1 << 31, 1e-12
SETTINGS_RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, _MANY),
    "time_budget": (_TINY, _MANY),
    "batch": (1, _MANY),
    "learning_rate": (_TINY, 1e38),
    "warmup": (0, _MANY),
    "seed": (0, _MANY - 1),
    "average": (0, 1 - 1e-9),
    "beta1": (0, 1 - 1e-9),
    "beta2": (0, 1 - 1e-9),
    "clip": (_TINY, 1e38),
    "checkpoint_every": (1, _MANY),
    "keep_checkpoints": (1, _MANY),
}
"""Setting -> the smallest and the largest value that a training can work with."""

CROPS: dict[str, tuple[float, float]] = {"image": (4, 1 << 14), "audio": (0.1, 60)}
"""Medium -> the smallest and the largest crop."""


@dataclass(frozen=True)
class Settings:
    """How a model is trained.

    Attributes:
        steps: optimiser steps, where no time budget is given.
        time_budget: seconds over which the schedule is laid, or None; what precedes the first step is not
            counted.
        batch: crops a step.
        crop: their side in pixels, or their length in seconds.
        learning_rate: peak of the cosine schedule.
        warmup: steps over which it rises.
        seed: of every random choice.
        average: decay of the averaged weights, which are the ones kept.
        beta1, beta2: decay of AdamW's moments.
        clip: largest norm of the gradient.
        validation: held-out share of the files, or a folder or tar file.
        checkpoint_every: steps between validations, each followed by a checkpoint.
        keep_checkpoints: how many stay on the disk.
    """

    steps: int = 20_000
    time_budget: float | None = None
    batch: int = 16
    crop: float = 128
    learning_rate: float = 1e-3
    warmup: int = 100
    seed: int = 0
    average: float = 0.999
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 1.0
    validation: str = "0.05"
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3


SETTINGS = {"image": Settings(), "audio": Settings(crop=0.64, beta1=0.8, beta2=0.99)}
"""Medium -> how its models are trained unless told otherwise."""

OWN_SETTINGS: dict[type, Settings] = {
    ppca.Config: Settings(steps=500, batch=8, crop=192, learning_rate=2e-3, average=0.99),
    vae.Config: Settings(batch=4, crop=192),
}
"""Class of settings of a model -> how it is trained, where that is not how its medium is."""

PRIOR_SETTINGS = {
    "image": Settings(steps=5000, learning_rate=2e-3),
    "audio": Settings(steps=5000, learning_rate=2e-3, crop=2.048),
}
"""Medium -> how its learned priors are trained unless told otherwise."""


def defaults(model: Any) -> Settings:
    """How a model of these settings is trained unless told otherwise."""
    return OWN_SETTINGS.get(type(model)) or SETTINGS[medium_of(model)]


def overridden(
    model: Any, settings: Settings, overrides: Mapping[str, str], settable: set[str], where: str
) -> tuple[Any, Settings]:
    """Settings of the model and of the training with those of --set."""
    for key, text in overrides.items():
        if key in settable:
            model = replace(model, **{key: parse(type(model), key, text)})
        elif key in {f.name for f in fields(Settings)}:
            settings = replace(settings, **{key: parse(Settings, key, text)})
        else:
            raise UsageError(f"no setting '{key}'{where}", "see config.json")
    return model, settings


def medium_of(model: Any) -> str:
    """Of settings."""
    for medium, prior in PRIORS.items():
        if type(prior) is type(model):
            return medium
    return str(CLASSES[type(model)].medium)


def held_out_share(validation: str) -> float | None:
    """The share of the files that `Settings.validation` states; None where it names a folder or tar file."""
    try:
        return float(validation)
    except ValueError:
        return None


def from_json(values: Mapping[str, Any], default: Any) -> Any:
    """These settings, those that are not among them as in `default`."""
    unknown = set(values) - {f.name for f in fields(default)}
    if unknown:
        raise UsageError(f"unknown settings {', '.join(sorted(unknown))}", "made by another version?")
    return replace(default, **values)


def parse(kind: type, key: str, text: str) -> Any:
    """The value of a setting from its text, by the field's type."""
    hint = get_type_hints(kind)[key]
    choices = getattr(hint, "__args__", ())
    if str in map(type, choices):
        if text not in choices:
            raise UsageError(f"{key} is '{text}'", f"one of {', '.join(choices)}")
        return text
    try:
        if hint is bool:
            return {"true": True, "false": False}[text.lower()]
        if hint is str:
            return text
        return int(text) if hint is int else float(text)
    except (ValueError, KeyError):
        expected = "true or false" if hint is bool else "a whole number" if hint is int else "a number"
        raise UsageError(f"{key} is '{text}'", f"give {expected}") from None


def check(model: Any, settings: Settings) -> None:
    """Refuse what would fail hours later, or without a word about its cause.

    Raises:
        UsageError: a setting out of its range.
    """
    ranges = RANGES[type(model)] | SETTINGS_RANGES | {"crop": CROPS[medium_of(model)]}
    for name, value in {**asdict(model), **asdict(settings)}.items():
        if name in ranges and value is not None:
            if not isinstance(value, int | float):
                raise UsageError(f"{name} is {value!r}", "give a number")
            low, high = ranges[name]
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}", f"give {low:g} to {high:g}")
    if isinstance(model, image.Config):
        stride = CLASSES[type(model)].stride
        if model.linear_start and model.code_dim > 3 * stride**2:
            raise UsageError(
                f"code_dim is {model.code_dim}",
                f"give 1 to {3 * stride**2}, the principal components of a block",
            )
    stride = CLASSES[type(model)].stride if type(model) in CLASSES else ImageVQVAE.stride
    if medium_of(model) == "image" and settings.crop % stride:
        raise UsageError(f"crop is {settings.crop:g}", f"give a multiple of {stride}")
    if isinstance(model, wavenet.Config) and model.adversarial:
        raise UsageError("critics have nothing to judge in a decoder that draws", "leave out adversarial")
    share = held_out_share(settings.validation)
    if share is not None and not 0 < share < 1:
        raise UsageError(f"--validation {settings.validation}", "a folder, or a share between 0 and 1")
