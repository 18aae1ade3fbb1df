"""Make ICC profiles of colours that a file states otherwise: chromaticities, exponents, curves, code points.

Samples stay as they are; a profile of a matrix and curves says what they mean. Code points are those of ITU-T
H.273, as in PNG's cICP and the nclx of AVIF and HEIF.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ImageCms

Curve = float | str | np.ndarray
"""Of a channel, sample -> light: an exponent, a name of `_CURVES`, or uint16 [n] at even distances."""

_D65, _C, _E = (0.3127, 0.3290), (0.310, 0.316), (1 / 3, 1 / 3)
_DCI = (0.314, 0.351)
SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ADOBE = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_SMPTE = (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
PRIMARIES: dict[int, tuple[float, ...]] = {
    1: SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: _SMPTE,
    7: _SMPTE,
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    10: (*_E, 1, 0, 0, 1, 0, 0),
    11: (*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""Code point -> x and y of white, red, green and blue."""

_BT709 = "BT.709"
_TRANSFERS: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 11, 12, 14, 15), _BT709),
    4: 2.2,
    5: 2.8,
    7: "SMPTE 240M",
    8: 1.0,
    9: "log 100",
    10: "log 316",
    13: "sRGB",
    16: "PQ",
    17: "DCI",
    18: "HLG",
}
HDR = {16: "PQ", 18: "HLG"}
WHITE_NITS = 203
"""Of diffuse white in HDR images (ITU-R BT.2408); brighter parts clip in a profile."""

_PARAMETRIC = {
    "sRGB": (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
    _BT709: (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081),
    "SMPTE 240M": (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4.0, 0.0913),
}
"""Function of type 3: (a x + b) ** g from d on, c x below; g, a, b, c, d."""


def _pq(x: np.ndarray) -> np.ndarray:
    root = x ** (32 / 2523)
    light = np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)
    return 10_000 * light ** (16384 / 2610) / WHITE_NITS


def _hlg(x: np.ndarray) -> np.ndarray:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(x <= 0.5, x * x / 3, (np.exp((x - c) / a) + b) / 12)
    return 1000 * scene**1.2 / WHITE_NITS


_TABLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "PQ": _pq,
    "HLG": _hlg,
    "log 100": lambda x: np.where(x > 0, 10 ** (2 * (x - 1)), 0),
    "log 316": lambda x: np.where(x > 0, 10 ** (2.5 * (x - 1)), 0),
    "DCI": lambda x: x**2.6 * 52.37 / 48,
}
_TABLE_SIZE = 4096


@dataclass(frozen=True)
class Colorimetry:
    """Colours as a file states them, otherwise than by ICC.

    Attributes:
        primaries: x and y of white, red, green and blue; None: nothing is stated.
        curves: of the three channels, or one for all.
        code: primaries and transfer in H.273, if stated so.
        note: a warning: what is lost or clipped; may be empty.
    """

    primaries: tuple[float, ...] | None = None
    curves: tuple[Curve, ...] = ("sRGB",)
    code: tuple[int, int] | None = None
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether a profile can be made of the colours."""
        return self.primaries is not None

    @classmethod
    def coded(cls, primaries: int, transfer: int) -> Colorimetry:
        """By the code points of H.273; 2 is unspecified, which means sRGB in an image."""
        hdr = HDR.get(transfer)
        note = hdr_note(hdr) if hdr else ""
        unknown = (primaries != 2 and primaries not in PRIMARIES) or (
            transfer != 2 and transfer not in _TRANSFERS
        )
        if unknown:
            code = (
                f"colours by the code points {primaries}, {transfer}, which have no known meaning, are lost"
            )
            return cls(note=f"{note}; {code}" if note else code)
        if (primaries, transfer) == (2, 2):
            return cls()
        curve = _TRANSFERS.get(transfer, "sRGB")
        return cls(PRIMARIES.get(primaries, SRGB), (curve,), (primaries, transfer), note)

    @classmethod
    def measured(cls, primaries: Sequence[float], exponent: float | None, *curves: Curve) -> Colorimetry:
        """By chromaticities and an exponent (None: the curve of sRGB), or a curve for each channel."""
        if not _matrix(primaries):
            return cls(note="chromaticities that no colours have, left out")
        return cls(tuple(primaries), curves or ("sRGB" if exponent is None else exponent,))

    @classmethod
    def of_png(cls, gamma: float | None, chromaticities: Sequence[float] | None) -> Colorimetry:
        """By gAMA and cHRM of PNG; a gamma of 0.45455 is the old way to say sRGB."""
        exponent = None if not gamma or abs(gamma - 0.45455) < 0.0005 else 1 / gamma
        return cls.measured(chromaticities or SRGB, exponent)

    def profile(self, channels: int) -> bytes | None:
        """An ICC profile for 1 or 3 channels; None for sRGB, and where nothing is stated."""
        if self.primaries is None:
            return None
        plain = all(isinstance(curve, str) and curve == "sRGB" for curve in self.curves)
        near = max(abs(a - b) for a, b in zip(self.primaries, SRGB, strict=True)) < 0.0015
        if plain and (near or channels == 1):
            return None
        tags: dict[bytes, bytes] = {}
        curves = [_curve(curve) for curve in self.curves]
        if channels == 1:
            tags[b"kTRC"] = curves[0]
        else:
            matrix = _matrix(self.primaries)
            if matrix is None:
                return None
            for index, name in enumerate((b"r", b"g", b"b")):
                tags[name + b"XYZ"] = _xyz(matrix[index])
                tags[name + b"TRC"] = curves[index % len(curves)]
            if self.code:
                tags[b"cicp"] = b"cicp" + bytes(4) + bytes([*self.code, 0, 1])
        return _pack(tags, b"GRAY" if channels == 1 else b"RGB ", self._name())

    def _name(self) -> str:
        curve = self.curves[0]
        shown = (
            curve if isinstance(curve, str) else "curve" if isinstance(curve, np.ndarray) else f"{curve:.4g}"
        )
        return f"Primaries {self.code[0]}, {shown}" if self.code else f"As stated by the file, {shown}"


_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def _matrix(primaries: Sequence[float]) -> list[np.ndarray] | None:
    """XYZ of red, green and blue seen under D50; None where they make no colours."""
    pairs = np.array(primaries, np.float64).reshape(4, 2)
    if not np.isfinite(pairs).all() or (abs(pairs) > 10).any() or pairs[0, 1] <= 0:
        return None
    columns = np.array([[x, y, 1 - x - y] for x, y in pairs]).T
    white = columns[:, 0] / columns[1, 0]
    if abs(np.linalg.det(columns[:, 1:])) < 1e-4:
        return None
    scales = np.linalg.solve(columns[:, 1:], white)
    cones = _BRADFORD @ white
    if (scales <= 0).any() or (cones <= 0).any():
        return None
    adapt = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / cones) @ _BRADFORD
    found = adapt @ (columns[:, 1:] * scales)
    return [found[:, index] for index in range(3)] if abs(found).max() < 100 else None


def _fixed(values: Sequence[float] | np.ndarray) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(65536 * float(value)) for value in values))


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)


def _curve(curve: Curve) -> bytes:
    if isinstance(curve, np.ndarray):
        return b"curv" + struct.pack(">II", 0, len(curve)) + curve.astype(">u2").tobytes()
    if isinstance(curve, str) and curve in _PARAMETRIC:
        return b"para" + struct.pack(">IHH", 0, 3, 0) + _fixed(_PARAMETRIC[curve])
    if isinstance(curve, str):
        light = _TABLES[curve](np.linspace(0, 1, _TABLE_SIZE))
        return _curve(np.rint(65535 * np.clip(light, 0, 1)))
    return b"para" + struct.pack(">IHH", 0, 0, 0) + _fixed([min(curve, 1000)])


def _text(text: str) -> bytes:
    words = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">III", 0, 1, 12) + b"enUS" + struct.pack(">II", len(words), 28) + words


def _pack(tags: dict[bytes, bytes], space: bytes, name: str) -> bytes:
    """Write a display profile of version 4.4."""
    tags = {b"desc": _text(name), b"cprt": _text("CC0"), b"wtpt": _xyz(_D50), **tags}
    body, table, places = b"", b"", {}
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        if data not in places:
            places[data] = start + len(body), len(data)
            body += data + bytes(-len(data) % 4)
        table += tag + struct.pack(">II", *places[data])
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x04400000, b"mntr", space, b"XYZ ")
    date = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    head += date + b"acsp" + bytes(28) + _fixed(_D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def hdr_note(hdr: str) -> str:
    """The warning of an HDR image."""
    return f"HDR image ({hdr}), kept in 8 bits with a profile; most screens clip what is brighter than white"


def hdr_profile(icc: bytes) -> str | None:
    """Find "PQ" or "HLG" where a profile says so by code points or in its name."""
    for at in range(132, min(len(icc) - 11, 132 + 12 * 100), 12):
        tag, offset = struct.unpack_from(">4sI", icc, at)
        if tag == b"cicp" and icc[offset : offset + 4] == b"cicp" and offset + 10 <= len(icc):
            return HDR.get(icc[offset + 9])
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(icc)))
    except (ImageCms.PyCMSError, OSError):
        return None
    words = name.upper().replace("_", " ").replace("-", " ").split()
    return next(
        (hdr for word, hdr in (("PQ", "PQ"), ("ST2084", "PQ"), ("HLG", "HLG")) if word in words), None
    )


def is_sound(icc: bytes) -> bool:
    """Tell whether a colour management system can use a profile of gray or RGB samples."""
    mode = {b"GRAY": "L", b"RGB ": "RGB"}.get(icc[16:20])
    if mode is None:
        return True  # of another space: said elsewhere that it does not fit
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False
    return True
