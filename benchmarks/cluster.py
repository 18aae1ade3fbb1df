"""A Ray cluster on one machine, with a worker lost in the middle, and the rate at which files are handed out.

    python benchmarks/cluster.py --files 500 --machines 2

Small images are encoded by as many worker processes as there are machines, then by a cluster of raylets of
one CPU each, one of whose workers is killed when half of the outputs are there, all by the command line.
Every output is compared byte by byte. Wall clock, start included; Ray itself is running before. Then jobs
without any work go through the same code: files per second that one command hands out and reports.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from vqcodec.cli import paths
from vqcodec.cli.batch import Batch
from vqcodec.cli.console import Console
from vqcodec.cli.listing import Input
from vqcodec.cli.outcome import Outcome
from vqcodec.cli.schedule import work_through

SIZE = 64, 48


def images(folder, count):
    """Write photographs of nothing: slopes, waves, a little noise."""
    folder.mkdir()
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]] / 16
    for number in range(count):
        rng = np.random.default_rng(number)
        a, b, c = rng.uniform(-1, 1, 3)
        planes = [128 + 60 * np.sin(a * x + b * y + c + k) + rng.normal(0, 4, x.shape) for k in range(3)]
        pixels = np.stack(planes, -1).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05}.png")


def lose_a_worker(machines, folder, outputs):
    """Kill a worker of the first machine that has one, once there are some outputs."""
    raylets = {
        info[0].process.pid
        for node in machines
        for kind, info in node.all_processes.items()
        if kind == "raylet"
    }
    while len(os.listdir(folder) if folder.exists() else ()) < outputs:
        time.sleep(0.01)
    for process in Path("/proc").glob("[0-9]*"):
        parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        if parent in raylets and (process / "cmdline").read_bytes().startswith(b"ray::_Actor"):
            os.kill(int(process.name), signal.SIGKILL)
            return


def encode(folder, out, *options):
    """Return seconds, and the summary."""
    command = [sys.executable, "-c", "from vqcodec.cli.main import run; run()", "encode", str(folder), "-r"]
    started = time.perf_counter()
    run = subprocess.run([*command, "-o", f"{out}/", "--json", *options], stdout=subprocess.PIPE, text=True)
    *files, summary = map(json.loads, run.stdout.splitlines())
    names = [file["input"] for file in files]
    if run.returncode or len(names) != len(set(names)):
        raise SystemExit(f"{options}: {summary}, {len(names)} records")
    return time.perf_counter() - started, summary


@dataclass(frozen=True)
class Nothing:
    """Say that all is done."""

    def prepare(self):
        """Load nothing."""

    def __call__(self, jobs, progress, threads):
        """Do nothing."""
        return [Outcome(job.source.name, {"bytes_in": 1, "bytes_out": 1}) for job in jobs]


def driver_rate(address, count):
    """Return files per second that one driver hands out, in batches as of small files, and reports."""
    todo = (
        paths.Job(Input(Path(name), name, Path(name)), Path(f"/nowhere/{name}.vqc"))
        for name in (f"{number:08}.png" for number in range(count))
    )
    batch, times = Batch(Console(quiet=True)), []
    settle = batch.settle
    batch.settle = lambda job, outcome: (times.append(time.perf_counter()), settle(job, outcome))
    work_through(batch, "", todo, Nothing(), workers=None, small=lambda job: True, ray=address)
    return (len(times) - 1) / (times[-1] - times[0])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--machines", type=int, default=2)
    parser.add_argument("--nothing", type=int, default=50_000, help="files without work")
    given = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    machines = [cluster.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(given.machines)]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            source, local, remote = (Path(scratch, name) for name in ("in", "local", "cluster"))
            images(source, given.files)
            alone, _ = encode(source, local, "-j", str(given.machines))
            killer = threading.Thread(target=lose_a_worker, args=(machines, remote, given.files // 2))
            killer.start()
            together, summary = encode(source, remote, "--ray", cluster.address)
            killer.join()
            right = sum((local / path.name).read_bytes() == path.read_bytes() for path in remote.iterdir())
        print(f"{given.files} images of {SIZE[0]} x {SIZE[1]}: {given.machines} processes {alone:.1f} s")
        print(f"cluster, one worker lost: {together:.1f} s, {summary['ok']} done, {right} right")
        print(f"one command hands out {driver_rate(cluster.address, given.nothing):,.0f} files/s")
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
