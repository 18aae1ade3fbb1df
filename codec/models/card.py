"""The model card: name, settings and measurements of a model, in the metadata of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..priors.settings import Value

Setting = Value
Json = dict[str, Any]
"""A JSON object."""

Figures = Mapping[str, Any]
"""A read-only JSON object: measurements, or facts of a training."""


@dataclass(frozen=True)
class Card:
    """The model card, stored in the metadata of the weights file.

    Attributes:
        name: of the model in bitstreams.
        medium: "image" or "audio".
        method: its name in the paper; medium and method choose the class.
        config: settings of the model.
        fingerprint: 16 hexadecimal digits over everything that decoding depends on.
        parameters: number of parameters of the networks.
        points: "quality", "bpp" and "psnr_db" at some operating points, of variable-rate models.
        measured: validation figures.
        training: commands, data, steps, hours.
        learned: of the learned prior: method, config, fingerprint, measured, training; None without one.
    """

    name: str
    medium: str
    method: str
    config: Mapping[str, Setting]
    fingerprint: str = ""
    parameters: int | None = None
    points: Sequence[Mapping[str, float]] = ()
    measured: Figures = field(default_factory=dict)
    training: Figures = field(default_factory=dict)
    learned: Figures | None = None

    @classmethod
    def from_json(cls, values: Figures) -> Card:
        """Read a card; further fields, of later versions, are ignored.

        Raises:
            TypeError: a field is missing.
        """
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    def to_json(self) -> Json:
        """Return the card as a JSON object, without the fields that a model does not have."""
        optional = {"parameters", "points", "learned"}
        return {k: v for k, v in asdict(self).items() if v or k not in optional}
