from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from vqcodec import files
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


def part(folder: Path, name: str = "0123456789ab") -> Path:
    path = folder / f".vqcodec-{name}.part"
    path.write_bytes(b"left over")
    return path


def test_what_a_killed_program_left_is_swept_away_by_the_next(tmp_path: Path) -> None:
    left = part(tmp_path)
    others = [tmp_path / ".vqcodec-mine.part", tmp_path / "0123456789ab.part"]
    for other in others:
        other.touch()
    os.mkfifo(tmp_path / ".vqcodec-ba9876543210.part")
    write(tmp_path / "file", b"data")
    assert not left.exists()
    assert all(other.exists() for other in others)
    assert (tmp_path / ".vqcodec-ba9876543210.part").exists()


def test_what_a_living_program_writes_is_not_swept_away(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom vqcodec.files import atomically\n"
        "with atomically(Path(sys.argv[1])) as file:\n"
        "    file.write(b'all of it')\n    print('begun', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "slow")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == b"begun\n"
        assert len(list(tmp_path.glob(".*.part"))) == 1
        assert files.sweep(tmp_path) == []
        write(tmp_path / "quick", b"data")
        assert len(list(tmp_path.glob(".*.part"))) == 1
        writer.stdin.close()
        assert writer.wait(20) == 0
    assert (tmp_path / "slow").read_bytes() == b"all of it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quick", "slow"]


def test_a_file_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, first = files.fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not first:
            first.extend(tmp_path.glob(".*.part"))
            first[0].unlink()
        lock(handle, how)

    monkeypatch.setattr(files.fcntl, "flock", late)
    write(tmp_path / "file", b"data")
    assert len(first) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"data"


def test_without_locks_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = part(tmp_path)

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", none)
    write(tmp_path / "file", b"data")
    monkeypatch.setattr(files, "fcntl", None)
    write(tmp_path / "file", b"other")
    assert left.exists()
    assert (tmp_path / "file").read_bytes() == b"other"


def test_a_line_that_was_cut_off_is_ended_before_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for line in ("one", "zwei"):
        files.append_line(log, line)
    with log.open("ab") as file:
        file.write(b"ha")
    files.append_line(log, "drei ü")
    assert log.read_text() == "one\nzwei\nha\ndrei ü\n"
