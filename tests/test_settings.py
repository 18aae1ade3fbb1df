"""Settings carry their limits, and take values of JSON and of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from vqcodec.errors import UsageError
from vqcodec.models import MODELS, build, class_for, class_of
from vqcodec.priors import PRIORS, learned_prior_for
from vqcodec.priors.settings import Config, setting


@dataclass(frozen=True)
class Example(Config):
    """One setting of each type."""

    width: int = setting(8, low=1, high=64, may_grow=True)
    weight: float = setting(0.5, low=0, high=1, training_only=True)
    kind: Literal["a", "b"] = "a"
    on: bool = setting(False, training_only=True, fixed_on_resume=True)


def test_limits_are_those_of_the_fields() -> None:
    limits = Example.limits()
    assert list(limits) == ["width", "weight", "kind", "on"]
    assert limits["width"].may_grow and not limits["width"].may_shrink
    assert (limits["width"].low, limits["width"].high) == (1, 64)
    assert {name for name, one in limits.items() if one.training_only} == {"weight", "on"}
    assert limits["kind"].high is None


def test_values_out_of_range_are_refused() -> None:
    Example(64, 1.0).check()
    for wrong in (Example(width=65), Example(weight=-0.1), Example(weight=float("nan"))):
        with pytest.raises(UsageError, match="is"):
            wrong.check()
    with pytest.raises(UsageError, match="width is 'big'"):
        Example().with_values({"width": "big"}).check()
    with pytest.raises(UsageError, match="unknown settings colour, size"):
        Example().with_values({"size": 1, "colour": 2})


def test_values_of_text_follow_the_type_of_the_field() -> None:
    found = Example().with_texts({"width": "12", "weight": "0.25", "kind": "b", "on": "True"})
    assert found == Example(12, 0.25, "b", True)
    assert Example().with_values(found.to_json()) == found
    for key, text in (("width", "1.5"), ("weight", "much"), ("kind", "c"), ("on", "maybe")):
        with pytest.raises(UsageError, match=f"{key} is '{text}'"):
            Example().with_texts({key: text})


@pytest.mark.parametrize("name", list(MODELS))
def test_each_model_is_built_by_its_settings(name: str) -> None:
    entry = MODELS[name]
    assert class_of(entry.config) is entry.model is class_for(entry.model.medium, entry.model.method)
    assert type(build(entry.config)) is entry.model
    entry.training.check()


def test_each_medium_has_a_learned_prior() -> None:
    assert {medium: learned_prior_for(medium) for medium in ("image", "audio", "video")} == {
        "image": "pixelcnn",
        "audio": "wavenet",
        "video": None,
    }
    assert all(entry.config.limits() for entry in PRIORS.values())
