"""A Ray cluster of two machines, which are two raylets on this one; workers and machines that are lost."""

from __future__ import annotations

import json
import os
import signal
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vqcodec
from cli_fakes import bitstream, done, invoke, records
from conftest import photo
from toy_task import Unlucky, jobs
from vqcodec import media
from vqcodec.cli import paths
from vqcodec.cli.cluster import ClusterWorkers, _Actor
from vqcodec.cli.listing import Input
from vqcodec.cli.outcome import Outcome
from vqcodec.cli.remote import path_of
from vqcodec.errors import UsageError

if find_spec("ray") is None:  # imported by the fixture, once its settings are known
    pytest.skip("Ray is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that dir:// stands for, on every machine."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def cluster(store: Path) -> Iterator[Any]:
    """Two machines of one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSSPEC_DIR", json.dumps({"path": str(store), "target_protocol": "file"}))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        from ray.cluster_utils import Cluster

        machines = Cluster()
        for _ in range(2):
            machines.add_node(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False)
        yield machines
        machines.shutdown()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def work(cluster: Any, task: Any, batches: Any, meanwhile: Any = None) -> dict[str, Outcome]:
    workers = ClusterWorkers(task, cluster.address, None)
    finished: list[Outcome] = []
    try:
        for given, outcomes in workers.run(iter(batches)):
            assert [job.source.name for job in given] == [outcome.name for outcome in outcomes]
            finished += outcomes
            if meanwhile is not None:
                meanwhile()
    finally:
        workers.stop()
    assert len({outcome.name for outcome in finished}) == len(finished)
    return {outcome.name: outcome for outcome in finished}


def test_what_a_lost_worker_had_in_work_is_done_again_and_nothing_twice(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqcodec.cli.cluster.ATTEMPTS", 2)
    for name in "ab":
        Path(name).write_bytes(b"12345")
    batches = [jobs("a", "once", "b"), jobs("c"), jobs("d", "e"), jobs("broken"), jobs("killer", "f")]
    done = work(cluster, Unlucky(), batches)
    failed = {name: out.failure.message for name, out in done.items() if out.failure}
    assert failed == {
        "broken": "internal error: ValueError: a broken file",
        "killer": "2 workers were lost with it, perhaps for lack of memory",
    }
    assert sorted(done) == sorted([*"abcdef", "once", "broken", "killer"])
    times = Counter(Path("log").read_text().split())
    assert times == Counter([*"abcdef", "once", "broken"])
    # Written before its worker was lost.
    assert done["a"].fields == {"output": "a.out", "bytes_in": 5, "bytes_out": len(Path("a.out").read_text())}
    assert not [path for path in Path().iterdir() if path.suffix == ".part"]


def test_wrong_options_end_the_run_and_nothing_half_written_stays(cluster: Any) -> None:
    with pytest.raises(UsageError, match="wrong options"):
        work(cluster, Unlucky(), [jobs("slow"), jobs("a"), jobs("misused")])
    assert sorted(path.name for path in Path().iterdir()) == ["a.out", "log"]


def test_a_machine_that_is_lost_takes_no_file_with_it(cluster: Any) -> None:
    third = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    names = [f"pause{n}" for n in range(12)]
    gone = []

    def remove() -> None:
        if not gone:
            gone.append(third)
            cluster.remove_node(third, allow_graceful=False)

    done = work(cluster, Unlucky(), [jobs(name) for name in names], meanwhile=remove)
    assert gone and sorted(done) == sorted(names)
    assert not [out for out in done.values() if out.failure]
    assert sorted(path.stem for path in Path().glob("*.out")) == sorted(names)


def lose_a_worker(cluster: Any, folder: Path, after: int, lost: list[int]) -> None:
    """Kill one worker once there are some outputs; note its process."""
    deadline = time.monotonic() + 60
    raylets = [
        process[0].process.pid
        for node in cluster.list_all_nodes()
        for name, process in node.all_processes.items()
        if name == "raylet"
    ]
    while len([*folder.rglob("*.vqc")]) < after and time.monotonic() < deadline:
        time.sleep(0.01)
    for entry in Path("/proc").iterdir():
        try:
            title, parent = (
                (entry / "cmdline").read_bytes(),
                (entry / "stat").read_text().rpartition(")")[2].split()[1],
            )
        except OSError:
            continue
        if title.startswith(b"ray::_Actor") and int(parent) in raylets:
            os.kill(int(entry.name), signal.SIGKILL)
            lost.append(int(entry.name))
            return


def test_a_folder_elsewhere_is_encoded_and_decoded(
    cluster: Any, store: Path, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every output is right, though a worker is lost, and an input is damaged."""
    import fsspec

    monkeypatch.setitem(fsspec.config.conf, "dir", {"path": str(store), "target_protocol": "file"})
    names = [f"{'deep/' if n % 3 else ''}{n:02}" for n in range(60)]
    for seed, name in enumerate(names):
        photo(f"{store}/in/{name}.png", 24, 16, seed)
    (store / "in" / "bad.png").write_bytes((store / "in" / "00.png").read_bytes()[:200])
    known = {name: vqcodec.encode(f"{store}/in/{name}.png", model=small) for name in names}
    for name in names[:7]:
        path = store / "out" / f"{name}.vqc"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(known[name])
    words = ["encode", "dir://in", "-r", "-o", "dir://out/", "-m", small, "--json", "--skip-existing"]
    lost: list[int] = []
    killer = threading.Thread(target=lose_a_worker, args=(cluster, store / "out", 20, lost))
    killer.start()
    result = invoke(*words, "--ray", cluster.address)
    killer.join()
    assert result.exit_code == 1 and len(lost) == 1
    *files, summary = records(result)
    assert (summary["ok"], summary["failed"], summary["skipped"]) == (53, 1, 7)
    inputs = Counter(file["input"] for file in files)
    assert inputs == Counter(f"dir://in/{name}.png" for name in [*names, "bad"])
    assert [file["error"] for file in files if file["status"] == "error"] == ["truncated PNG"]
    written = {str(path.relative_to(store / "out")): path.read_bytes() for path in store.rglob("*.vqc")}
    assert written == {f"{name}.vqc": data for name, data in known.items()}
    assert not [*store.rglob("*.part")]

    words = ["decode", "dir://out/0*.vqc", "-o", "decoded.tar", "-m", small]
    assert "4 files" in done(*words, "--ray", "local", "-j", "1").stderr
    with tarfile.open("decoded.tar") as tar:
        tar.extractall("decoded", filter="data")
    image = vqcodec.decode_image(known["03"], model=small)
    assert np.array_equal(media.read_image("decoded/03.decoded.png").samples, image.samples)


def test_a_machine_without_the_folder_refuses_local_files() -> None:
    """They would be missing, or be written where nobody looks for them."""
    actor = _Actor(Unlucky(), "/nowhere/at/all")
    assert actor.prepare() is None
    refusal = actor.do(jobs("a"))
    assert isinstance(refusal, UsageError) and "no folder /nowhere/at/all" in refusal.message
    assert os.listdir() == []
    elsewhere = paths.Job(Input(path_of("memory://a"), "a", Path("a")), path_of("memory://a.out"))
    (outcome,) = actor.do([elsewhere])  # type: ignore[misc]
    assert outcome.name == "a"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ray", "nowhere"], "--ray nowhere: not an address"),
        (["--ray", "ray://127.0.0.1:1"], "--ray ray://127.0.0.1:1: not an address"),
        (["--ray", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1: connection refused"),
        (["--ray", "local", "-o", "-"], "a cluster does not write to stdout"),
        (["--ray", "local", "--device", "cuda"], "a cluster computes on CPUs"),
    ],
)
def test_what_a_cluster_cannot_do(fakes: Any, words: list[str], message: str) -> None:
    for command, name in (("encode", "a.png"), ("decode", "a.vqc")):
        Path("a.vqc").write_bytes(bitstream())
        result = invoke(command, name, *words)
        assert (result.exit_code, result.stderr.splitlines()[0]) == (2, f"vqcodec: {message}")
        assert "hint: " in result.stderr
    assert sorted(os.listdir()) == ["a.png", "a.vqc", "b.png"]


def test_without_ray_the_extra_is_named(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = invoke("encode", "a.png", "--ray", "local")
    assert result.exit_code == 2
    assert "--ray needs Ray" in result.stderr and "pip install 'vqcodec[ray]'" in result.stderr
