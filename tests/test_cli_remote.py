"""Inputs and outputs on other file systems: fsspec's own in memory, and one that can fail."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from cli_fakes import bitstream, done, invoke, records
from conftest import photo
from vqcodec.cli import paths, remote
from vqcodec.cli.remote import RemotePath, path_of
from vqcodec.errors import MediaError, UsageError


@pytest.fixture
def memory() -> Iterator[Any]:
    """The file system in memory, emptied."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def keys(memory: Any, folder: str) -> list[str]:
    return sorted(key.removeprefix(f"/{folder}/") for key in memory.find(folder))


def test_a_remote_path_is_a_path() -> None:
    path = path_of("s3://bucket/deep/photo.png")
    assert isinstance(path, RemotePath)
    assert str(path.with_suffix(".vqc")) == "s3://bucket/deep/photo.vqc"
    assert str(path.parent / "b" / Path("c")) == "s3://bucket/deep/b/c"
    assert (path.name, path.suffix, path.stem) == ("photo.png", ".png", "photo")
    assert pickle.loads(pickle.dumps(path)) == path
    assert path != Path("s3:/bucket/deep/photo.png")
    assert path_of("file:///tmp/a") == Path("/tmp/a") and path_of("C://x") == Path("C://x")
    with pytest.raises(TypeError, match="not a local file"):
        os.fspath(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s3:///a.png", "not an address of a file"),
        ("s3://", "not an address of a file"),
        ("zip://a.png::s3://b/c.zip", "not an address of a file"),
        ("nothing://b/a.png", "Protocol not known"),
    ],
)
def test_addresses_that_lead_nowhere(fakes: Any, name: str, message: str) -> None:
    result = invoke("encode", name, "-o", "out/")
    assert result.exit_code == 2
    assert message in result.stderr and "hint: " in result.stderr


def test_a_missing_package_is_named_with_the_extra(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    result = invoke("encode", "s3://bucket/a.png", "-o", "out/")
    assert result.exit_code == 2
    assert "s3:// needs a package: Install s3fs to access S3" in result.stderr
    assert "pip install 'vqcodec[remote]'" in result.stderr


def test_folders_patterns_lists_and_what_exists(fakes: Any, memory: Any) -> None:
    for name in ("a.png", "b.jpg", "deep/c.png", "deep/d.txt", ".hidden.png"):
        memory.pipe(f"/in/{name}", b"p" * 100)
    memory.pipe("/in/deep/bad.png", b"BAD")
    words = "encode", "memory://in", "-r", "-o", "memory://out/", "--json"
    result = invoke(*words)
    *files, summary = records(result)
    assert {file["input"]: file["status"] for file in files} == {
        "memory://in/a.png": "ok",
        "memory://in/b.jpg": "ok",
        "memory://in/deep/bad.png": "error",
        "memory://in/deep/c.png": "ok",
        "memory://in/deep/d.txt": "skipped",
    }
    assert (summary["bytes_in"], result.exit_code) == (300, 1)
    assert keys(memory, "out") == ["a.vqc", "b.vqc", "deep/c.vqc"]
    assert memory.cat("/out/a.vqc") == bitstream(ord("p"))

    memory.rm("/out/b.vqc")
    summary = records(invoke(*words, "--skip-existing"))[-1]
    assert (summary["ok"], summary["failed"], summary["skipped"]) == (1, 1, 3)
    refused = [file.get("error") for file in records(invoke(*words))[:-1]]
    assert refused.count("memory://out/a.vqc exists") == 1
    assert records(invoke(*words, "-f"))[-1]["ok"] == 3

    # Next to the inputs; by a pattern, to a local folder; from a list, whose paths are mirrored.
    done("encode", "memory://in/a.png")
    assert memory.exists("/in/a.vqc")
    done("encode", "memory://in/*.[jp][pn]g", "-o", "here/")
    assert sorted(path.name for path in Path("here").iterdir()) == ["a.vqc", "b.vqc"]
    Path("list").write_text("memory://in/deep/c.png\nmemory://in/none.png\n")
    result = invoke("encode", "--files-from", "list", "-o", "memory://listed/")
    assert result.exit_code == 1 and "memory://in/none.png: no such file" in result.stderr
    assert keys(memory, "listed") == ["in/deep/c.png.vqc"]
    assert "no such file" in invoke("encode", "memory://in/*.gif").stderr


def test_patterns_of_local_addresses(fakes: Any) -> None:
    for name in ("a.png", "b[1].png", "c.jpg", ".hidden.png"):
        Path("in", name).parent.mkdir(exist_ok=True)
        photo(Path("in", name))
    here = f"file://{Path('in').resolve()}"
    done("encode", f"{here}/*.png", f"{here}/c.jpg", "-o", "out/")
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.vqc", "b[1].vqc", "c.vqc"]
    done("encode", f"{here}/b[1].png", "-o", "one/")
    assert [path.name for path in Path("one").iterdir()] == ["b[1].vqc"]
    assert len(records(invoke("info", "--json", f"file://{Path('out').resolve()}/?.vqc"))) == 3
    assert "no such file" in invoke("encode", f"{here}/*.gif").stderr


def test_other_file_systems_are_asked_for_several_at_once(
    fakes: Any, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the files of a list nor the outputs that may exist wait for each other's answers."""
    for number in range(8):
        memory.pipe(f"/in/{number}.png", b"p" * 100)
        memory.pipe(f"/out/in/{number}.png.vqc", b"v")
    together, ask = threading.Barrier(4), type(memory).info
    asked: list[str] = []

    def info(system: Any, path: str, **options: Any) -> Any:
        asked.append(path)
        if path.endswith((".png", ".vqc")):
            together.wait(timeout=20)  # breaks where they come one by one
        return ask(system, path, **options)

    monkeypatch.setattr(type(memory), "info", info)
    Path("list").write_text("".join(f"memory://in/{number}.png\n" for number in range(8)))
    result = done("encode", "--files-from", "list", "-o", "memory://out/", "--skip-existing")
    assert "8 skipped" in result.stderr
    assert len([path for path in asked if path.endswith(".png")]) == 8


def test_bitstreams_there_are_decoded_here_and_there(fakes: Any, memory: Any) -> None:
    memory.pipe("/in/a.vqc", bitstream())
    done("decode", "memory://in/a.vqc")
    done("decode", "memory://in/a.vqc", "-o", "a.jpg")
    done("decode", "memory://in/a.vqc", "-o", "memory://new/a.webp")
    done("decode", "memory://in/a.vqc", "-o", "memory://top.png")
    assert memory.exists("/top.png") and not [name for name in os.listdir() if "memory" in name]
    assert Path("a.jpg").exists() and keys(memory, "in") == ["a.decoded.png", "a.vqc"]
    assert keys(memory, "new") == ["a.webp"]


def test_tars_elsewhere_are_refused(fakes: Any, memory: Any) -> None:
    for words in (["memory://a.tar"], ["a.png", "-o", "memory://a.tar"]):
        result = invoke("encode", *words)
        assert result.exit_code == 2
        assert "vqcodec: memory://a.tar: tars are read and written here only" in result.stderr


def test_other_commands_read_them_or_say_that_they_do_not(memory: Any, tmp_path: Path) -> None:
    photo(f"{tmp_path}/a.png")
    memory.put(f"{tmp_path}/a.png", "/in/a.png")
    memory.pipe("/in/a.vqc", bitstream())
    assert "8 x 4" in done("info", "memory://in/a.vqc").stdout
    assert done("placeholder", "memory://in/a.png").stdout == done("placeholder", f"{tmp_path}/a.png").stdout
    result = invoke("evaluate", "memory://in/a.png")
    assert result.exit_code == 1 and "memory://in/a.png: is not on a local disk" in result.stderr


def test_an_output_is_not_its_input(fakes: Any, memory: Any) -> None:
    memory.pipe("/in/a.png", b"p" * 100)
    result = invoke("encode", "memory://in/a.png", "-o", "memory://in/a.png", "-f")
    assert result.exit_code == 2 and "would overwrite its own input" in result.stderr


@pytest.mark.parametrize("store", [True, False])
def test_an_upload_that_fails_leaves_the_old_file_and_nothing_else(
    memory: Any, monkeypatch: pytest.MonkeyPatch, store: bool
) -> None:
    """A store gets one upload under the name; others get the file under another name, renamed."""
    monkeypatch.setattr(remote, "STORES", frozenset(["memory"] if store else []))
    path = path_of("memory://out/a")
    memory.pipe("/out/a", b"old")
    uploaded = []
    upload = type(memory).put_file

    def put(system: Any, source: str, key: str) -> None:
        uploaded.append(key)
        if len(uploaded) > 1:
            raise RuntimeError("no credentials")
        upload(system, source, key)

    monkeypatch.setattr(type(memory), "put_file", put)
    with paths.replacing(path, force=True) as file:
        file.write(b"new")
        assert memory.cat("/out/a") == b"old"
    assert memory.cat("/out/a") == b"new"
    failing = pytest.raises(MediaError, match="cannot write memory://out/a: runtimeerror: no credentials")
    with failing, paths.replacing(path, force=True) as file:
        file.write(b"newer")
    assert memory.cat("/out/a") == b"new" and keys(memory, "out") == ["a"]
    assert all((key == "/out/a") == store for key in uploaded) and len(uploaded) == 2
    with pytest.raises(MediaError, match="memory://out/a exists"), paths.replacing(path, force=False):
        pass


def test_there_are_no_such_paths_where_paths_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqcodec.cli.remote.os.name", "nt")
    with pytest.raises(UsageError, match="only local files"):
        path_of("s3://bucket/a.png")
