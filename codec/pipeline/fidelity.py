"""Warn of audio that decodes far too loud or too soft, as tones and clicks do by models of speech."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..coding.chunks import EncodedChunks
from ..errors import FidelityWarning, warn
from ..metrics import spectra
from ..transform import audio as audio_transform
from ..transform.highpass import CUTOFF
from . import encoding
from .channels import Excerpts
from .encoding import Analysed, Encoded

OCTAVES = 62.5 * 2.0 ** np.arange(8)
"""Ends of the octaves that are compared, in hertz."""

TOLERANCE_DB = 6.0
"""An octave that is off by more causes a warning; in validation speech none is, with two levels or more."""

FLOOR_DB = 40.0
"""Octaves that are softer than the loudest by more are not compared."""

LEAST_KEPT = 0.1
"""Share of the energy that the filter before the model leaves; less causes a warning."""

WINDOW = 1024


def checked(encoded: Encoded) -> Encoded:
    """Return an encoded file, and warn where its audio decodes at other levels, or was filtered out."""
    excerpts = encoded.excerpts
    if excerpts is None:
        return encoded
    if excerpts.kept < LEAST_KEPT:
        lost = f"{1 - excerpts.kept:.0%} of the energy of a channel"
        warn(f"{lost} is below {CUTOFF:.0f} Hz and is not kept", FidelityWarning)
    elif not encoded.point.whole:
        deviations = deviation_db(*_energies(encoded, excerpts))
        worst = int(np.abs(deviations).argmax())
        if abs(deviations[worst]) > TOLERANCE_DB:
            low, high = (f"{round(end):,}" for end in OCTAVES[worst : worst + 2])
            how = "loud" if deviations[worst] > 0 else "soft"
            found = f"{abs(deviations[worst]):.0f} dB too {how}"
            warn(
                f"{low} to {high} Hz decode {found}: {encoded.model} was not made for such sounds",
                FidelityWarning,
            )
    return encoded


def finish(file: Analysed, coded: EncodedChunks, *, fast: bool = False) -> Encoded:
    """Finish a file as `encoding.finish` does, and warn as `checked` does."""
    return checked(encoding.finish(file, coded, fast=fast))


def deviation_db(original: NDArray[np.float64], decoded: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much octaves are too loud, in decibels; 0 for those that hardly count.

    Args:
        original: energies of octaves.
        decoded: of the same octaves.
    """
    counts = original > max(original.max(initial=0) * 10 ** (-FLOOR_DB / 10), 1e-9)
    ratio = np.where(counts, decoded + 1e-12, 1.0) / np.where(counts, original, 1.0)
    deviations: NDArray[np.float64] = 10 * np.log10(ratio)
    return deviations


def _energies(encoded: Encoded, excerpts: Excerpts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the energies of octaves of excerpts, as they were and as decoded."""
    totals = np.zeros((2, len(OCTAVES) - 1))
    for region, theirs in excerpts.regions:
        mine = {p.name: encoded.symbols[p.name][region.part(p.stride)] for p in encoded.point.planes}
        ours = audio_transform.synthesise_signal(mine, encoded.point, len(theirs))
        totals += [octaves(theirs), octaves(ours)]
    return totals[0], totals[1]


def octaves(signal: NDArray[np.float32], rate: int = 16_000) -> NDArray[np.float64]:
    """Return the energies of octaves, see OCTAVES, in squares of a spectrum: float32 [N] -> float64 [7]."""
    padded = np.pad(signal, (0, max(WINDOW - len(signal), 0)))
    power = spectra.stft(torch.from_numpy(padded)[None], WINDOW).abs().square().sum(2)[0].numpy()
    bins = np.arange(WINDOW // 2 + 1) * rate / WINDOW
    found = [
        power[(bins >= low) & (bins < high)].sum() for low, high in zip(OCTAVES, OCTAVES[1:], strict=False)
    ]
    return np.array(found, np.float64)
