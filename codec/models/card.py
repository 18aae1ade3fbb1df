"""The model card: what a weights file says about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..priors.settings import Value

Setting = Value
Json = dict[str, Any]
"""An object of JSON."""

Figures = Mapping[str, Any]
"""The same, which is not written to: what was measured, how something was trained."""


@dataclass(frozen=True)
class Card:
    """The model card, which lies in the metadata of the weights.

    Attributes:
        name: what bitstreams call the model.
        medium: "image" or "audio".
        method: the paper's name of it; with the medium it says which class builds it.
        config: settings of the model.
        fingerprint: 16 hexadecimal digits over what decides how symbols are read and decoded.
        parameters: of the networks.
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
        """Read a card; what a later version has beside these fields is passed over.

        Raises:
            TypeError: a field is missing.
        """
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    def to_json(self) -> Json:
        """The card as it is written; fields that a model does not have are left out."""
        optional = {"parameters", "points", "learned"}
        return {k: v for k, v in asdict(self).items() if v or k not in optional}
