"""Validation during a training, and what is measured at its end: one road for every model.

The rate comes from what the model, or its prior, says of the symbols; the distortion from the medium.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import PIL.Image
import torch

from ... import pipeline
from ...bitstream import container
from ...bitstream.quality import DEFAULT_QUALITY, index_of
from ...evaluation.latents import pictures
from ...metrics.image import code_use
from ...models import LatentModel
from ...models.base import Figures, Model, OperatingPoint, Plane, RoundTrip, Trainable
from ...pipeline import ladder
from .latents import Latents
from .media import MEDIA, Medium

QUALITIES = (1, 2, 3, 4, 5)
"""Operating points of variable-rate models that cards tell."""

SEVERAL_POINTS_FILES = 16
"""Files looked at during a training at each of several operating points."""

MEASURED_FILES = 24
"""Files measured at the end at each of several operating points."""

DRAWN_AUDIO = 16
"""Held-out files that a decoder draws at the end: the seconds of a batch, drawn side by side."""

DRAWN = 4
"""Images or pieces of audio that a prior draws."""

SHEET_INDEX = 121
"""Quality index of the contact sheets of variable-rate models."""


class Validation(Protocol):
    """What a kind of training is judged by.

    Attributes:
        headline: name of the figure that the loss curve is drawn of, and its label.
        files: held-out files looked at during the training; at its end all are.
    """

    headline: tuple[str, str]
    files: int

    def validate(self, model: Trainable, held_out: Sequence[np.ndarray]) -> tuple[float, Figures]:
        """Look at held-out files, in memory.

        Args:
            model: in evaluation mode.
            held_out: images uint8 [H, W, 3], or audio float32 [N].

        Returns:
            A score, the larger the better, and figures by name.
        """

    def preview_sheet(self, model: Trainable, held_out: Sequence[np.ndarray]) -> PIL.Image.Image:
        """Draw what the model makes of some held-out files."""

    def measured(self, model: Model, held_out: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Return those of the held-out files that `measure` takes its time for."""

    def measure(self, model: Model, held_out: Sequence[np.ndarray]) -> Figures:
        """Measure the finished model, with its priors, over held-out files.

        Returns:
            Figures as cards have them.
        """


class SymbolCount:
    """Histograms of the indices of each plane."""

    def __init__(self, planes: Sequence[Plane]) -> None:
        self.histograms = {p.name: np.zeros(p.alphabet, np.int64) for p in planes if p.alphabet}

    def add(self, symbols: Mapping[str, np.ndarray | torch.Tensor]) -> None:
        """Count the indices of some samples."""
        for name, histogram in self.histograms.items():
            if name not in symbols:  # a rate that does without the plane
                continue
            histogram += np.bincount(
                np.asarray(torch.as_tensor(symbols[name]).cpu()).ravel(), minlength=len(histogram)
            )

    @property
    def figures(self) -> dict[str, float]:
        """See `use_figures`."""
        return use_figures(self.histograms)


def use_figures(histograms: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How alphabets are used: "codes_used" and "perplexity", followed by "_PLANE" where there are several."""
    figures: dict[str, float] = {}
    for name, histogram in histograms.items():
        use, suffix = code_use(histogram), "" if len(histograms) == 1 else f"_{name}"
        figures |= {f"codes_used{suffix}": use.used, f"perplexity{suffix}": use.perplexity}
    return figures


class Reconstructions:
    """Validation of models by what comes out of them, at one operating point or several."""

    files = 64

    def __init__(self, medium: Medium) -> None:
        self.medium = medium
        self.headline = medium.headline

    @torch.inference_mode()
    def validate(self, model: Trainable, held_out: Sequence[np.ndarray]) -> tuple[float, Figures]:
        """As in `Validation.validate`.

        The figures are means over files and points, and the use of the indices. Of models whose round trip
        tells a loss the score is the negative loss. With several points there are also "loss", the "bpp" of
        each, and by interpolation "psnr_quarter", "psnr_half", "psnr_one" (dB at so many bits per pixel),
        "ms_ssim_quarter" and so on.
        """
        codec, indexes = model.codec, model.codec.validation_points
        chosen = held_out if len(indexes) == 1 else some(held_out, SEVERAL_POINTS_FILES)
        count = SymbolCount(codec.at(indexes[-1]).planes)
        rows: list[list[dict[str, float]]] = []
        for index in indexes:
            point, rows = codec.at(index), [*rows, []]
            for original in chosen:
                window = self.medium.window(original, point)
                trip = model.round_trip(self.medium.to_tensor(window).to(codec.device), index)
                count.add(trip.symbols)
                rows[-1].append(self._figures(trip, window, point))
        means = [{name: float(np.mean([f[name] for f in row])) for name in row[0]} for row in rows]
        name, sign = self.headline[0], self.medium.sign
        figures: dict[str, float] = {}
        for key in means[0]:
            figures[key] = float(np.mean([mean[key] for mean in means]))
        if len(indexes) == 1 or "loss" not in figures:
            score = -figures["loss"] if "loss" in figures else sign * figures[name]
            return score, figures | count.figures
        rates = [mean["bpp"] for mean in means]
        at: dict[str, float] = {}
        for kind, key in self.medium.interpolated.items():
            curve = np.log(rates), [mean[key] for mean in means if key in mean]
            for label, rate in self.medium.rates.items() if curve[1] else ():
                at[f"{kind}_{label}"] = float(np.interp(np.log(rate), *curve))
        reported = {name: figures[name], **at, "loss": figures["loss"], "bpp": rates}
        return -figures["loss"], reported | count.figures

    def _figures(self, trip: RoundTrip, window: np.ndarray, point: OperatingPoint) -> dict[str, float]:
        if trip.samples is None:
            raise TypeError("a model whose round trip gives no samples")
        figures = self.medium.figures(self.medium.to_array(trip.samples), window, point)
        if trip.loss is not None:
            rate = {} if trip.bits is None else {"bpp": trip.bits / trip.units}
            figures |= {"loss": trip.loss, **rate, **trip.figures}
        return figures

    @torch.inference_mode()
    def preview_sheet(self, model: Trainable, held_out: Sequence[np.ndarray]) -> PIL.Image.Image:
        """As in `Validation.preview_sheet`: originals above their reconstructions."""
        codec = model.codec
        index = SHEET_INDEX if len(codec.validation_points) > 1 else codec.validation_points[0]
        point, pairs = codec.at(index), []
        for original in held_out:
            window = self.medium.window(original, point, short=True)
            trip = model.round_trip(self.medium.to_tensor(window).to(codec.device), index)
            if trip.samples is not None:
                pairs.append((window, self.medium.to_array(trip.samples)))
        return self.medium.sheet(pairs, point)

    def measured(self, model: Model, held_out: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """As in `Validation.measured`."""
        return some(held_out, MEASURED_FILES) if model.points > 1 else held_out

    def measure(self, model: Model, held_out: Sequence[np.ndarray]) -> Figures:
        """As in `Validation.measure`, by real bitstreams.

        The figures of one point: "quality", "bpp" or "kbps", distances, use of the indices, how many files;
        of several: "points", "payload_over_ideal", how many files.
        """
        several = model.points > 1
        chosen = self.measured(model, held_out)
        count = SymbolCount(model.at(model.validation_points[-1]).planes)
        points: list[dict[str, float]] = []
        paid, ideal = 0, 0.0
        # Each operating point once, where there are few.
        qualities: dict[int, float] = {}
        for quality in QUALITIES if several else (DEFAULT_QUALITY,):
            qualities.setdefault(model.at(index_of(quality)).index, quality)
        for index, quality in qualities.items():
            rung = ladder.rung_at(model, index)
            point = model.at(rung.base)
            rows = []
            for original in chosen:
                encoded = pipeline.encode_at(self.medium.wrap(original, point), point, rung=rung)
                decoded = self.medium.unwrap(pipeline.reconstruct(encoded))
                rate: float = getattr(encoded, self.medium.rate) or 0.0
                rows.append({self.medium.rate: rate} | self.medium.figures(decoded, original, point))
                count.add(encoded.symbols)
                paid += container.read_info(encoded.data).code_bytes if encoded.estimate_bits else 0
                ideal += encoded.estimate_bits
            means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
            points.append({"quality": quality, **means})
        if several:
            ratio = 8 * paid / max(ideal, 1.0)
            return {
                "points": points,
                "payload_over_ideal": ratio,
                **count.figures,
                "files": len(chosen),
            }
        return {**points[0], **count.figures, "files": len(chosen)}


class Likelihoods(Reconstructions):
    """Validation of models whose decoder draws, by the bits per sample."""

    def __init__(self, medium: Medium) -> None:
        super().__init__(medium)
        self.headline = ("bits", "bits per sample")

    @torch.inference_mode()
    def validate(self, model: Trainable, held_out: Sequence[np.ndarray]) -> tuple[float, Figures]:
        """As in `Validation.validate`: "bits" (mean over the files) and the use of the indices."""
        point, bits = model.codec.at(0), []
        count = SymbolCount(point.planes)
        for original in held_out:
            window = self.medium.window(original, point, short=True)
            trip = model.round_trip(self.medium.to_tensor(window).to(point.device))
            bits.append((trip.bits or 0.0) / trip.units)
            count.add(trip.symbols)
        mean = float(np.mean(bits))
        return -mean, {"bits": mean, **count.figures}

    def preview_sheet(self, model: Trainable, held_out: Sequence[np.ndarray]) -> PIL.Image.Image:
        """As in `Validation.preview_sheet`: originals above what is drawn from their symbols."""
        point = model.codec.at(0)
        return self.medium.sheet(list(self._drawn(model.codec, held_out)), point)

    def measured(self, model: Model, held_out: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """As in `Validation.measured`: those that are drawn."""
        del model
        return some(held_out, DRAWN_AUDIO)

    def measure(self, model: Model, held_out: Sequence[np.ndarray]) -> Figures:
        """As in `Validation.measure`: the figures of `validate`, and distances of some that are drawn."""
        _, figures = self.validate(model, held_out)
        point = model.at(0)
        rows = [
            self.medium.figures(drawn, w, point)
            for w, drawn in self._drawn(model, self.measured(model, held_out))
        ]
        name = self.medium.headline[0]
        distance = float(np.mean([row[name] for row in rows]))
        return {"quality": DEFAULT_QUALITY, **figures, name: distance, "files": len(held_out)}

    @torch.inference_mode()
    def _drawn(
        self, model: Model, originals: Sequence[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Windows, and what is drawn from their symbols, laid end to end so that a batch is full."""
        point = model.at(0, effort=0)
        windows = [self.medium.window(original, point, short=True) for original in originals]
        found = [point.analyse(self.medium.to_tensor(window).to(point.device)) for window in windows]
        whole = {plane.name: torch.cat([one[plane.name] for one in found], 1) for plane in point.planes}
        drawn = self.medium.to_array(point.synthesise(whole))
        at = 0
        for window in windows:
            yield window, drawn[at : at + len(window)]
            at += len(window)


class Lossless(Reconstructions):
    """Validation of models that code pixels without loss, by their bits."""

    def __init__(self, medium: Medium) -> None:
        super().__init__(medium)
        self.headline = ("bits", "bits per pixel")

    @torch.inference_mode()
    def validate(self, model: Trainable, held_out: Sequence[np.ndarray]) -> tuple[float, Figures]:
        """As in `Validation.validate`: "bits" per pixel over all files, by the network in training."""
        point, bits, units = model.codec.at(0), 0.0, 0
        for original in held_out:
            samples = self.medium.to_tensor(self.medium.window(original, point))
            trip = model.round_trip(samples.to(point.device))
            bits, units = bits + (trip.bits or 0.0), units + trip.units
        return -bits / units, {"bits": bits / units}

    def measure(self, model: Model, held_out: Sequence[np.ndarray]) -> Figures:
        """As in `Validation.measure`, without distances, since there are none."""
        found = super().measure(model, held_out)
        return {name: figure for name, figure in found.items() if name != "psnr_db"}


class Priors:
    """Validation of learned priors, by the bits per symbol."""

    files = 64

    def __init__(self, medium: Medium) -> None:
        self.medium = medium
        self.headline = ("bits", "bits per code")

    @torch.inference_mode()
    def validate(self, model: Trainable, held_out: Sequence[np.ndarray]) -> tuple[float, Figures]:
        """As in `Validation.validate`: "bits" over all symbols, by the network in training, and their use."""
        point = model.codec.at(model.codec.validation_points[-1])
        count, bits, units = SymbolCount(point.planes), 0.0, 0
        for original in held_out:
            window = self.medium.window(original, point)
            trip = model.round_trip(self.medium.to_tensor(window).to(point.device))
            bits, units = bits + (trip.bits or 0.0), units + trip.units
            count.add(trip.symbols)
        mean = bits / max(units, 1)
        return -mean, {"bits": mean, **count.figures}

    def preview_sheet(self, model: Trainable, held_out: Sequence[np.ndarray]) -> PIL.Image.Image:
        """As in `Validation.preview_sheet`: what is drawn from the prior."""
        del held_out
        return self.medium.sampled(model.export(), DRAWN)

    def measured(self, model: Model, held_out: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """As in `Validation.measured`: all."""
        del model
        return held_out

    def measure(self, model: Model, held_out: Sequence[np.ndarray]) -> Figures:
        """As in `Validation.measure`, by real bitstreams.

        The figures: "bpp" or "kbps" (mean of the files), "bits" (per symbol, of all chunks' payloads),
        "static_bits" (the same with static tables alone), "payload_over_ideal", the use of the indices,
        "files".
        """
        point = model.at(model.validation_points[-1])
        count, rates = SymbolCount(point.planes), []
        paid = static = units = 0
        ideal = 0.0
        for original in held_out:
            source = self.medium.wrap(original, point)
            quick, encoded = (pipeline.encode_at(source, point, fast=fast) for fast in (True, False))
            pipeline.reconstruct(encoded)
            rates.append(getattr(encoded, self.medium.rate))
            paid += container.read_info(encoded.data).code_bytes
            static += container.read_info(quick.data).code_bytes
            ideal += encoded.estimate_bits
            units += sum(array.size for array in encoded.symbols.values())
            count.add(encoded.symbols)
        return {
            self.medium.rate: float(np.mean(rates)),
            "bits": 8 * paid / max(units, 1),
            "static_bits": 8 * static / max(units, 1),
            "payload_over_ideal": 8 * paid / ideal,
            **count.figures,
            "files": len(held_out),
        }


def of(model: Trainable, stage: str) -> Validation:
    """What a training is judged by."""
    if isinstance(model.codec, LatentModel):
        return Latents()
    medium = MEDIA[model.codec.medium]
    if stage == "prior":
        return Priors(medium)
    if model.codec.lossless:
        return Lossless(medium)
    return Likelihoods(medium) if model.codec.draws else Reconstructions(medium)


def some(originals: Sequence[np.ndarray], most: int) -> Sequence[np.ndarray]:
    """At most so many files, evenly chosen."""
    return originals[:: -(-len(originals) // most)]


def regions(originals: Sequence[np.ndarray], model: Model) -> Iterator[dict[str, np.ndarray]]:
    """Symbols of files, by regions whose statistics are counted; without symbols, batches of "pictures"."""
    if isinstance(model, LatentModel):
        for batch in pictures([*originals], model):
            yield {"pictures": batch.cpu().numpy()}
        return
    point = model.at(model.validation_points[-1], effort=0)
    for original in originals:
        yield from MEDIA[model.medium].analyse(original, point)
