"""Settings of models, priors and trainings: dataclasses whose fields declare their limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Literal, Self, TypeVar, get_type_hints

from ..errors import UsageError

Value = int | float | bool | str

T = TypeVar("T")

MANY, TINY, HUGE = 1 << 31, 1e-12, 1e38

LIMITS = "limits"
"""Key of a field's metadata: the `Limits` of the setting."""


@dataclass(frozen=True)
class Limits:
    """The range of a setting, and the rules for changing it.

    Attributes:
        low, high: the smallest and the largest valid value; None: any.
        may_grow, may_shrink: whether it may be larger, or smaller, than that of the weights that a training
            starts from.
        training_only: it does not change the meaning of the weights.
        fixed_on_resume: it decides which parameters are optimised, so that a resumed run must keep it.
    """

    low: float | None = None
    high: float | None = None
    may_grow: bool = False
    may_shrink: bool = False
    training_only: bool = False
    fixed_on_resume: bool = False


def setting(
    default: T,
    *,
    low: float | None = None,
    high: float | None = None,
    may_grow: bool = False,
    may_shrink: bool = False,
    training_only: bool = False,
    fixed_on_resume: bool = False,
) -> T:
    """Declare a field of a `Config`, see `Limits`."""
    limits = Limits(low, high, may_grow, may_shrink, training_only, fixed_on_resume)
    made: T = field(default=default, metadata={LIMITS: limits})
    return made


@dataclass(frozen=True)
class Config:
    """Base of all settings; every field has a default."""

    @classmethod
    def limits(cls) -> dict[str, Limits]:
        """Return the limits of every setting, by name."""
        return {f.name: f.metadata.get(LIMITS, Limits()) for f in fields(cls)}

    def check(self) -> None:
        """Refuse values that would fail hours later, or without naming the cause.

        Raises:
            UsageError: a setting out of its range.
        """
        for name, limits in self.limits().items():
            value = getattr(self, name)
            if limits.low is None or limits.high is None or value is None:
                continue
            if not isinstance(value, int | float):
                raise UsageError(f"{name} is {value!r}", "give a number")
            if not limits.low <= value <= limits.high:
                raise UsageError(f"{name} is {value}", f"give {limits.low:g} to {limits.high:g}")

    def with_values(self, values: Mapping[str, object]) -> Self:
        """Return these settings with some values from a JSON object.

        Raises:
            UsageError: there is no such setting.
        """
        unknown = set(values) - {f.name for f in fields(self)}
        if unknown:
            raise UsageError(
                f"unknown settings {', '.join(sorted(unknown))}", "another version may have written them"
            )
        return replace(self, **values)

    def with_texts(self, texts: Mapping[str, str]) -> Self:
        """Return these settings with some values parsed from text.

        Raises:
            UsageError: a text that is no value of its setting.
        """
        return replace(self, **{key: parse(type(self), key, text) for key, text in texts.items()})

    def to_json(self) -> dict[str, Value]:
        """Return the settings as a JSON object."""
        return asdict(self)


def parse(kind: type[Config], key: str, text: str) -> Value:
    """Parse the value of a setting from text, by the field's type.

    Raises:
        UsageError: the text is no such value.
    """
    hint = get_type_hints(kind)[key]
    choices = getattr(hint, "__args__", ())
    if str in map(type, choices):
        if text not in choices:
            raise UsageError(f"{key} is '{text}'", f"give one of {', '.join(choices)}")
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


@dataclass(frozen=True)
class TrainConfig(Config):
    """Settings of a training.

    Attributes:
        steps: optimiser steps, where no time budget is given.
        time_budget: seconds for all of a run, its beginning and its end included; None: `steps` decide.
        batch: crops per step.
        crop: side of a crop in pixels, or its length in seconds.
        learning_rate: peak of the cosine schedule.
        warmup: steps over which the learning rate rises to its peak.
        seed: of every random choice.
        average: decay of the exponential moving average of the weights, which is what is saved.
        beta1, beta2: decay of AdamW's moments.
        clip: largest norm of the gradient.
        weight_decay: of AdamW.
        precision: of products in the networks; bfloat16 is faster on devices that have it.
        binarise: how bytes become 0 or 1, for models of such pixels, see `datasets.binarised`.
        downscale: largest factor that images are downscaled by, those of validation too; the smallest is its
            square root. Traces of an earlier compression go with it. 1: not at all.
        noise: largest standard deviation of noise that is then added, for images in levels, for segments of
            audio as a share of their RMS.
        coarse_chroma: share of images whose chroma is then brought to half the resolution and back, as most
            cameras have it.
        reverberation: share of segments of audio that are heard in a simulated room.
        equaliser: largest gain that octaves of segments of audio get, in decibels.
        validation: held-out share of the files, or a folder or tar file.
        checkpoint_every: steps between validations, each followed by a checkpoint.
        keep_checkpoints: number of checkpoints kept on disk.
        start_weight: share of the weights that a training starts from in those that it saves.
        keep: the weights of a run: "best" in validation, or the "last", as where a training changes what its
            loss weighs. With a discriminator, whose lesson no validation measures, the last.
    """

    steps: int = setting(20_000, low=1, high=MANY)
    time_budget: float | None = setting(None, low=TINY, high=MANY)
    batch: int = setting(16, low=1, high=MANY)
    crop: float = 128
    learning_rate: float = setting(1e-3, low=TINY, high=HUGE)
    warmup: int = setting(100, low=0, high=MANY)
    seed: int = setting(0, low=0, high=MANY - 1)
    average: float = setting(0.999, low=0, high=1 - 1e-9)
    beta1: float = setting(0.9, low=0, high=1 - 1e-9)
    beta2: float = setting(0.999, low=0, high=1 - 1e-9)
    clip: float = setting(1.0, low=TINY, high=HUGE)
    weight_decay: float = setting(0.01, low=0, high=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    binarise: Literal["none", "static", "dynamic", "threshold"] = "none"
    downscale: float = setting(1.0, low=1, high=16)
    noise: float = setting(0.0, low=0, high=64)
    coarse_chroma: float = setting(0.0, low=0, high=1)
    reverberation: float = setting(0.0, low=0, high=1)
    equaliser: float = setting(0.0, low=0, high=40)
    validation: str = "0.05"
    checkpoint_every: int = setting(1000, low=1, high=MANY)
    keep_checkpoints: int = setting(3, low=1, high=MANY)
    start_weight: float = setting(0.0, low=0, high=1)
    keep: Literal["best", "last"] = "best"
