"""Folders with several workers against one: the ratio of their times in one run, in turns.

    python benchmarks/folders.py --images FOLDER --audio FOLDER --count 200 --jobs 2

Three sets are made from the files: photographs of 1 megapixel, 24 thumbnails of 160 pixels, and recordings as
they are. Each is encoded by the command line, with one worker and with several, in turns; the times are wall
clock of the fastest turn, start included. CPU seconds tell whether a core waited in a loop: they should be
nearly equal; each worker adds what it takes to import torch.
A ratio above 1 needs as many free cores as there are workers.
"""

import argparse
import contextlib
import ctypes
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from vqcodec.cli.workers import processors

MEGAPIXEL = (1152, 896)
THUMBNAIL = (160, 160)
THUMBNAILS = 24


def images(folder, target, size, count):
    """Write `count` images of one size; where they are too few they are used again, mirrored."""
    target.mkdir()
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".png", ".jpg", ".webp")]
    for number, path in enumerate(itertools.islice(itertools.cycle(files), count)):
        with Image.open(path) as picture:
            resized = picture.convert("RGB").resize(size)
            if number // len(files) % 2:
                resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            resized.save(target / f"{number:04}.jpg", quality=92)


def recordings(folder, target, count):
    target.mkdir()
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".wav", ".flac", ".mp3")]
    for number, path in enumerate(itertools.islice(itertools.cycle(files), count)):
        shutil.copy(path, target / f"{number:04}{path.suffix.lower()}")


def adopt():
    """Become the parent of what outlives its own, as the server of workers does, to count its seconds."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def encode(folder, jobs):
    """Return wall-clock seconds, CPU seconds of all processes, and seconds to the first record."""
    with tempfile.TemporaryDirectory() as out:
        command = ["encode", folder, "-r", "-o", f"{out}/", "--json", "-j", str(jobs)]
        before, started, first = os.times(), time.perf_counter(), None
        code = "from vqcodec.cli.main import run; run()"
        with subprocess.Popen(
            [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True
        ) as run:
            for line in run.stdout:
                record = json.loads(line)
                first = first or time.perf_counter() - started
        wall = time.perf_counter() - started
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
    after = os.times()
    if run.returncode or record["ok"] != len(os.listdir(folder)):
        raise SystemExit(f"{folder}: {record}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, first


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="folder of photographs")
    parser.add_argument("--audio", type=Path, help="folder of recordings of sentences")
    parser.add_argument("--count", type=int, default=200, help="photographs, and recordings")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2)
    given = parser.parse_args()
    adopt()
    print(f"{processors()} cores may be used; {given.jobs} workers against one")
    print(
        f"{'set':14} {'files':>5} {'-j 1':>8} {f'-j {given.jobs}':>8} {'ratio':>6} {'CPU':>13} {'first':>6}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        sets = {}
        if given.images:
            images(given.images, Path(scratch, "thumbnails"), THUMBNAIL, THUMBNAILS)
            images(given.images, Path(scratch, "photographs"), MEGAPIXEL, given.count)
            sets = {"thumbnails": THUMBNAILS, "photographs": given.count}
        if given.audio:
            recordings(given.audio, Path(scratch, "recordings"), given.count)
            sets["recordings"] = given.count
        for name, count in sets.items():
            turns = [
                (encode(Path(scratch, name), 1), encode(Path(scratch, name), given.jobs))
                for _ in range(given.turns)
            ]
            (one, one_cpu, _), (many, many_cpu, first) = (min(side) for side in zip(*turns, strict=True))
            print(
                f"{name:14} {count:5} {one:6.1f} s {many:6.1f} s {one / many:6.2f}"
                f" {one_cpu:5.1f}, {many_cpu:5.1f} {first:4.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
