"""Evaluate rate and quality over real files: all figures come from bytes written and decoded again.

Measured are the pixels, or the signal at the rate of the codec: metadata and alpha are left out for all
codecs, and times are from samples in memory to bytes in memory and back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import media
from ..errors import UsageError
from ..pipeline import Encoded
from . import audio, baselines, figures, image
from .bd_rate import bd_rates
from .candidates import Measures, Row, Source, choose, many, point_text
from .disk import files, medium_of
from .image import compare
from .report import Gallery, Selection, write_report
from .tables import COLUMNS, plot, summary, write_csv, write_json

__all__ = [
    "COLUMNS",
    "Gallery",
    "audio",
    "bd_rates",
    "compare",
    "evaluate",
    "figures",
    "files",
    "measure",
    "image",
    "plot",
    "summary",
    "write_csv",
    "write_json",
    "write_report",
]

BY_MEDIUM: dict[str, Measures] = {"image": image, "audio": audio}
"""Medium -> module that measures its files."""


def evaluate(
    sources: Source | Sequence[Source],
    *,
    model: Source | Sequence[Source] | None = None,
    quality: float | Sequence[float] | None = None,
    against: Sequence[str] = (),
    sweep: bool = False,
    effort: int = 1,
    save_decoded: Source | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    on_error: Callable[[Path, Exception], None] | None = None,
    gallery: Gallery | None = None,
) -> list[Row]:
    """Encode images and audio to real files, decode them, and measure, vs. other codecs.

    Args:
        sources: files, or folders for all images and audio directly inside.
        model: names or files of models; None: the default model of each medium.
        quality: operating points; None: all measured points of each model.
        against: other codecs: "jpeg" (4:2:0, optimised Huffman tables), "webp" (method 4), "avif" (speed 6,
            4:2:0) and "jxl" (effort 7, extra `formats`), at the bytes of ours
            (`baselines.image.QualitySweep.matched_to`); "opus" of libsndfile at 6 kilobits per second, or for
            example "opus:12" at 12.
        sweep: measure these also over their own range, at the qualities or bitrates `sweep` of `baselines`.
        effort: of our encoder, 0 to 3.
        save_decoded: folder for our reconstructions, as STEM.MODEL.qN.png or .wav; files of these names are
            replaced.
        device: of the networks.
        progress: called with the number of rows done and of all rows.
        on_error: called with a file that cannot be measured, which is then skipped; None: raise.
        gallery: collects the pictures and sounds of the worst files, for `write_report`.

    Returns:
        One dict per file, codec and point. Images have the keys `image.COLUMNS`: the figures of
        `figures.of_image`, seconds of one run; a row of another codec is interpolated between the
        files q_low, bytes_low and q_high, bytes_high, at the bytes of our row `same_bytes_as`. Audio has the
        keys `audio.COLUMNS`: log-mel distance in decades and SI-SDR in dB, see `audio.figures`, at the rate
        of the codec; "seconds", "rate", "channels" are those of the original.

    Raises:
        UsageError: nothing to measure in a folder, an unknown codec in `against`, a sweep of none, an
            unknown model, a model or codec for a medium of which there are no files.
        MediaError: a file that is missing or cannot be read.
    """
    against = many(against)
    if sweep and not against:
        raise UsageError("a sweep is of other codecs, and none is named", "name some: against jpeg,avif")
    baselines.check(against)
    paths = files(sources)
    stems = [path.stem for path in paths]
    kinds = [medium_of(path) for path in paths]
    for name in against:
        if (kind := baselines.medium(name)) not in kinds:
            raise UsageError(f"{name} is for {kind}, and there are no such files", "leave it out")
    chosen = choose(model, quality, device, dict.fromkeys(kinds))
    others = {kind: [name for name in against if baselines.medium(name) == kind] for kind in chosen}
    # Number of rows after each file.
    ends = [
        *itertools.accumulate(
            BY_MEDIUM[kind].count(chosen[kind], others[kind], sweep=sweep) for kind in kinds
        )
    ]
    found: list[Row] = []
    done = 0
    for index, (path, kind) in enumerate(zip(paths, kinds, strict=True)):
        try:
            original, selection = media.read(path), Selection(chosen[kind])
            for measured in BY_MEDIUM[kind].rows(
                original, chosen[kind], others[kind], effort=effort, device=device, sweep=sweep
            ):
                row = measured.row | {"file": str(path)}
                found.append(row)
                done += 1
                if progress:
                    progress(done, ends[-1])
                if measured.ours and save_decoded is not None:
                    stem = path.stem if stems.count(path.stem) == 1 else f"{index:03d}-{path.name}"
                    name = f"{stem}.{Path(row['codec']).stem}.{point_text(row)}{BY_MEDIUM[kind].SUFFIX}"
                    Path(save_decoded).mkdir(parents=True, exist_ok=True)
                    measured.reconstruction().save(Path(save_decoded, name))
                if gallery is not None:
                    selection.add(measured)
            if gallery is not None:
                gallery.add(str(path), original, selection.chosen())
        except Exception as error:
            if on_error is None:
                raise
            on_error(path, error)
        done = ends[index]
    return found


def measure(
    original: media.Image | media.Audio,
    *,
    model: Source | None = None,
    quality: float | None = None,
    effort: int = 1,
    device: str = "auto",
) -> tuple[Row, Encoded, media.Image | media.Audio]:
    """Measure one image or audio at one operating point, see `image.measure` and `audio.measure`."""
    if isinstance(original, media.Image):
        return image.measure(original, model=model, quality=quality, effort=effort, device=device)
    return audio.measure(original, model=model, quality=quality, effort=effort, device=device)
