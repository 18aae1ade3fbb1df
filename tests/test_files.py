from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from vqcodec.files import atomically, is_special


def write(path: Path, data: bytes) -> None:
    with atomically(path) as file:
        file.write(data)


def test_file_appears_only_when_complete(tmp_path: Path) -> None:
    with atomically(tmp_path / "file") as file:
        file.write(b"data")
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_bytes() == b"data"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    path = tmp_path / "file"
    write(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        if where == "write":
            with atomically(path) as file:
                file.write(b"half")
                full()
        with monkeypatch.context() as context:
            context.setattr(*((os, "fsync", full) if where == "fsync" else (Path, "replace", full)))
            write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_mode_follows_the_umask_or_the_replaced_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write(path, b"old")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    write(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    write(tmp_path / ("x" * 255), b"data")
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "gone" / "file", b"data")


def test_a_link_keeps_pointing_to_what_is_replaced(tmp_path: Path) -> None:
    path, link = tmp_path / "real" / "file", tmp_path / "link"
    path.parent.mkdir()
    link.symlink_to(path)
    for data in (b"new", b"newer"):
        write(link, data)
        assert link.is_symlink()
        assert path.read_bytes() == data
    assert [found.name for found in path.parent.iterdir()] == ["file"]


def test_what_is_no_file_is_special(tmp_path: Path) -> None:
    write(tmp_path / "file", b"")
    os.mkfifo(tmp_path / "pipe")
    assert is_special(tmp_path / "pipe")
    assert not is_special(tmp_path / "file")
    assert not is_special(tmp_path / "absent")
