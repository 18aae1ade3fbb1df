"""Attack the readers of .vqc with files that lie behind right checksums, and with random damage.

python benchmarks/fuzz.py --minutes 10 [--seed 0] [--share 0.5] [--save fuzz-failures]

Each case is drawn from the seed and its number alone. Most are read as headers and containers only, which
takes microseconds; the rest are decoded, salvaged, previewed and written to a media file. A case fails if it
ends in anything but a result or a documented error, takes more than 10 s of CPU, or needs more than 1 GiB.
"""

import argparse
import io
import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from multiprocessing import Array
from pathlib import Path
from typing import Any

from lies import blow, lie, take_apart

SECONDS, MEMORY = 10, 1 << 30
"""Of CPU, and of memory beyond the models, that a case may take."""

MAX_PIXELS, MAX_SECONDS = 40_000, 3.0
"""What decoders are allowed, so that a header that lies costs no minutes."""

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
MODELS = ("ppca-image", "vae-image", "vqvae-image", "vqvae-audio")
FORMATS = {"image": ("png", "jpg", "webp", "tiff", "bmp"), "audio": ("wav", "flac", "ogg", "aiff")}


def corpus() -> list[bytes]:
    """Collect the golden files, and small ones with all boxes, priors and kinds of chunks."""
    import numpy as np
    from vqcodec import media, pipeline, weights

    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:24, 0:33] * 7
    small = np.stack([x + y, 255 - x, np.minimum(3 * y, 255)], 2).astype(np.uint8)
    alpha = (x % 256).astype(np.uint8)
    time_ = np.arange(3200)
    tone = (0.3 * np.sin(time_ / 9) + 0.01 * rng.normal(size=3200)).astype(np.float32)
    stereo = np.stack([tone, 0.8 * tone[::-1], 0 * tone], 1)
    found = [path.read_bytes() for path in sorted(GOLDEN.glob("*.vqc"))]
    for model in MODELS[:3]:
        options = pipeline.EncodeOptions(model=model, effort=0, fast=True, device="cpu")
        exif, xmp = b"MM\0*\0\0\0\x08\0\0" + bytes(40), b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>" * 4
        for image in (
            media.Image(small, alpha, icc=small.tobytes()[:200], exif=exif, xmp=xmp, source="PNG"),
            media.Image(rng.integers(0, 256, (5, 7, 1), np.uint8)),
            media.Image(np.tile(small, (1, 16, 1))[:16]),
            media.Image(np.full((40, 40, 3), 200, np.uint8)),
        ):
            found.append(pipeline.encode_file(image, options).data)
    options = pipeline.EncodeOptions(model="vqvae-audio", effort=0, fast=True, device="cpu")
    panned = np.stack([tone, np.roll(0.5 * tone, 9)], 1)
    for samples, rate in ((tone, 16_000), (stereo[:, :2], 44_100), (stereo, 8_000), (panned, 16_000)):
        audio = replace(media.Audio.of(samples, rate), tags={"title": "Stück", "artist": "B"}, source="WAV")
        found.append(pipeline.encode_file(audio, options).data)
    weights.load("vqvae-audio", "cpu")
    return found


@dataclass
class Case:
    """One file, and what is done with it."""

    data: bytes
    way: str


class Fuzzer:
    """Draw cases and judge them."""

    def __init__(self, seed: int, share: float) -> None:
        self.seed, self.share = seed, share
        self.corpus = corpus()
        self.files = [take_apart(data) for data in self.corpus]
        self.payloads = [chunk[1] for file in self.files for chunk in file.chunks]

    def case(self, number: int) -> Case:
        """Draw a case from the seed and its number."""
        rng = random.Random((self.seed << 40) + number)
        at = rng.randrange(len(self.files))
        data = lie(self.files[at], rng, self.payloads).write() if rng.random() < 0.75 else self.corpus[at]
        if data is self.corpus[at] or rng.random() < 0.1:
            data = blow(data, rng, self.corpus)
        if rng.random() >= self.share:
            return Case(data, "read")
        return Case(
            data,
            rng.choice(("decode", "decode", "salvage", "salvage", "preview", "preview-salvage", "write")),
        )

    def run(self, case: Case, number: int) -> str:
        """Return how a case ended: "ok", or the name of a documented error; raise anything else."""
        from vqcodec import media, pipeline
        from vqcodec.bitstream import container
        from vqcodec.errors import BitstreamError, MediaError, ModelError

        documented = (BitstreamError, ModelError, MediaError)
        if case.way == "read":
            ends = []
            for read in (container.read_info, container.check, container.parse, _salvage, _from_stream):
                try:
                    read(case.data)
                    ends.append("ok")
                except documented as error:
                    assert error.message and error.message.isprintable()
                    ends.append(type(error).__name__)
            assert len(set(ends[2:3] + ["ok"])) <= 2
            return ends[2]
        try:
            decoded = pipeline.decode(
                case.data,
                salvage=case.way in ("salvage", "preview-salvage"),
                preview=case.way.startswith("preview"),
                max_pixels=MAX_PIXELS,
                max_seconds=MAX_SECONDS,
                device="cpu",
            )
            _check(decoded, container.read_info(case.data).geometry, case.way)
            if case.way == "write":
                kind = "image" if isinstance(decoded, media.Image) else "audio"
                media.write(decoded, io.BytesIO(), FORMATS[kind][number % len(FORMATS[kind])])
        except documented as error:
            assert error.message
            return type(error).__name__
        return "ok"


def _salvage(data: bytes) -> None:
    from vqcodec.bitstream import container

    container.parse(data, salvage=True)


def _from_stream(data: bytes) -> None:
    from vqcodec.bitstream import container

    container.read_info(io.BytesIO(data))


def _check(decoded: Any, size: Any, way: str) -> None:
    """Assert that what was decoded is what the header promised."""
    import numpy as np
    from vqcodec import media

    if isinstance(decoded, media.Audio):
        assert (decoded.channels, decoded.frames, decoded.rate) == (size.channels, size.frames, size.rate)
        assert np.isfinite(decoded.signal).all()
    else:
        shape = (size.height, size.width)
        if way.startswith("preview"):
            shape = (-(-size.height // 8), -(-size.width // 8))
        assert decoded.samples.shape == (*shape, size.channels), (decoded.samples.shape, shape)
        assert decoded.samples.dtype == np.uint8


class OverTimeError(BaseException):
    """A case took more CPU than it may."""


def _late(_number: int, _frame: object) -> None:
    raise OverTimeError


SLOTS = ("next", "failures", "slowest_us", "slowest", "done_read", "done_decode")


def work(fuzzer: Fuzzer, state: Any, ends: Any, kinds: list[str], until: float, folder: Path) -> None:
    """Run cases in a child process until the time is over; `state` and `ends` are shared with the parent."""
    import vqcodec.errors

    warnings.simplefilter("error")
    for category in (vqcodec.errors.DamageWarning, vqcodec.errors.MediaWarning):
        warnings.simplefilter("ignore", category)
    signal.signal(signal.SIGPROF, _late)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    while time.monotonic() < until:
        number = state[0]
        case = fuzzer.case(number)
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            end = fuzzer.run(case, number)
        except (Exception, OverTimeError) as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            end = "failed"
            state[1] += 1
            save(folder, number, case, traceback.format_exc())
            print(f"case {number} ({case.way}): {type(error).__name__}: {str(error)[:150]}", flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)
        spent = int(1e6 * (time.process_time() - started))
        if spent > state[2]:
            state[2], state[3] = spent, number
        ends[kinds.index(end)] += 1
        state[4 if case.way == "read" else 5] += 1
        state[0] = number + 1


def save(folder: Path, number: int, case: Case, why: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number}-{case.way}.vqc").write_bytes(case.data)
    (folder / f"{number}-{case.way}.txt").write_text(why)


def fuzz(minutes: float, seed: int, share: float, folder: Path, first: int = 0) -> dict[str, Any]:
    """Run cases for some minutes in child processes, each of which is replaced when it dies."""
    import torch
    from vqcodec import errors

    torch.set_num_threads(1)
    fuzzer = Fuzzer(seed, share)
    kinds = ["ok", "failed", *(n for n in dir(errors) if n.endswith("Error"))]
    state, ends = Array("q", len(SLOTS), lock=False), Array("q", len(kinds), lock=False)
    state[0] = first
    started = time.monotonic()
    until = started + 60 * minutes
    while time.monotonic() < until:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(fuzzer, state, ends, kinds, until, folder)
                code = 0
            except KeyboardInterrupt:
                code = 130
            finally:
                sys.stdout.flush()
                os._exit(code)
        try:
            _, status = os.waitpid(child, 0)
        except KeyboardInterrupt:
            os.waitpid(child, 0)
            break
        if status:
            number = state[0]
            print(f"case {number}: the process died, status {status}", flush=True)
            save(folder, number, fuzzer.case(number), f"the process died, status {status}")
            state[0], state[1] = number + 1, state[1] + 1
    result = dict(zip(SLOTS, state, strict=True))
    result["ends"] = Counter({kind: count for kind, count in zip(kinds, ends, strict=True) if count})
    result["seconds"] = time.monotonic() - started
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.05, help="of the cases that are decoded")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument(
        "--save", type=Path, default=Path("fuzz-failures"), help="folder for inputs that fail"
    )
    options = parser.parse_args()
    result = fuzz(options.minutes, options.seed, options.share, options.save, options.first)
    read, decoded = result["done_read"], result["done_decode"]
    print(f"{read + decoded:,} cases in {result['seconds']:.0f} s: {read:,} read, {decoded:,} decoded")
    print("\n| end | cases |\n|---|---:|")
    for kind, count in result["ends"].most_common():
        print(f"| {kind} | {count:,} |")
    print(f"\nslowest: case {result['slowest']}, {result['slowest_us'] / 1e6:.3f} s of CPU")
    print(f"failed: {result['failures']}" + (f", saved in {options.save}" if result["failures"] else ""))
    sys.exit(1 if result["failures"] else 0)


if __name__ == "__main__":
    main()
