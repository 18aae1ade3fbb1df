import errno
import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from vqcodec.cli import paths
from vqcodec.errors import MediaError, UsageError


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(target, data=b"new", **options):
    with paths.replacing(Path(target), **({"force": False} | options)) as file:
        file.write(data)


def find(*arguments, recursive=True):
    return paths.find(arguments, recursive=recursive, suffixes={".png"}, what="images")


def test_file_appears_only_when_complete():
    with paths.replacing(Path("out"), force=False) as file:
        file.write(b"half")
        assert not Path("out").exists()
    assert Path("out").read_bytes() == b"half"
    assert os.listdir() == ["out"]


@pytest.mark.parametrize("problem", [ValueError(), KeyboardInterrupt(), MemoryError()])
def test_anything_raised_leaves_the_old_file_and_nothing_else(problem):
    Path("out").write_bytes(b"old")
    with pytest.raises(type(problem)), paths.replacing(Path("out"), force=True) as file:
        file.write(b"half")
        raise problem
    assert os.listdir() == ["out"]
    assert Path("out").read_bytes() == b"old"


def test_full_disk_is_told_and_leaves_nothing(monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MediaError, match="cannot write out: no space left"):
        write("out")
    assert os.listdir() == []


def test_a_file_that_came_meanwhile_is_not_replaced():
    with pytest.raises(MediaError, match="out exists"), paths.replacing(Path("out"), force=False) as file:
        file.write(b"new")
        Path("out").write_bytes(b"other")
    assert Path("out").read_bytes() == b"other"
    assert os.listdir() == ["out"]


def test_modes_follow_the_umask_or_the_replaced_file():
    before = os.umask(0o027)
    try:
        write("out")
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path("out").stat().st_mode) == 0o640
    Path("out").chmod(0o604)
    write("out", force=True)
    assert stat.S_IMODE(Path("out").stat().st_mode) == 0o604


def test_links_keep_pointing():
    Path("real").write_bytes(b"old")
    Path("link").symlink_to("real")
    with pytest.raises(MediaError, match="link exists"):
        write("link")
    write("link", force=True)
    assert Path("link").is_symlink()
    assert Path("real").read_bytes() == b"new"


def test_devices_and_pipes_are_written_to_and_not_replaced():
    write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    os.mkfifo("pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_bytes()))
    reader.start()
    write("pipe")
    reader.join(10)
    assert got == [b"new"]
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_folders_are_made_and_a_folder_is_no_file():
    write("a/b/c")
    assert Path("a/b/c").read_bytes() == b"new"
    with pytest.raises(MediaError, match="a is a folder"):
        write("a", force=True)
    with pytest.raises(MediaError, match="cannot write a/b/c/d"):
        write("a/b/c/d")


def test_times_are_copied():
    Path("in").write_bytes(b"")
    os.utime("in", ns=(10**18, 10**18 + 1))
    write("out", times=(10**18, 10**18 + 1))
    assert Path("out").stat().st_mtime_ns == 10**18 + 1


def test_find_walks_in_order_and_tells_the_rest():
    for name in ("d/b.png", "d/a.PNG", "d/sub/c.png", "d/x.txt", "d/.git/e.png", "d/.f.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    found = find("d")
    assert [source.name for source in found.inputs] == ["d/a.PNG", "d/b.png", "d/sub/c.png"]
    assert found.inputs[2].below == Path("sub/c.png")
    assert found.foreign == ["d/x.txt"]


def test_find_does_not_follow_loops():
    Path("d").mkdir()
    Path("d/a.png").touch()
    Path("d/loop").symlink_to("..")
    assert [source.name for source in find("d").inputs] == ["d/a.png"]


def test_a_named_file_is_taken_whatever_its_suffix():
    Path("x.txt").touch()
    assert [source.name for source in find("x.txt").inputs] == ["x.txt"]


def test_barren_folders():
    Path("d").mkdir()
    Path("a.png").touch()
    with pytest.raises(UsageError, match="no images in d"):
        find("d")
    found = find("d", "a.png")
    assert [name for name, _ in found.failed] == ["d"]
    assert len(found.inputs) == 1


def test_nearest_name():
    Path("Photo1.png").touch()
    assert paths.nearest(Path("photo1.pgn")) == "is it Photo1.png?"
    assert paths.nearest(Path("zebra")) == "check the name"
    assert paths.nearest(Path("gone/photo")) == "there is no folder gone"


def test_broken_link_is_no_such_file():
    Path("a.png").symlink_to("nowhere")
    assert find("a.png").failed[0][1].message == "no such file"


def test_a_name_the_system_refuses_fails_alone():
    Path("a.png").touch()
    found = find("x" * 300, "a.png")
    assert [error.message for _, error in found.failed] == ["file name too long"]
    assert len(found.inputs) == 1


def plan(*names, output=None):
    inputs = [paths.Input(Path(name), name, Path(Path(name).name)) for name in names]
    return paths.plan(inputs, output, lambda source: ".vqc", len(names))


def test_outputs_of_suffixless_and_dotted_names():
    assert [str(job.output) for job in plan("photo", "a.b.png")] == ["photo.vqc", "a.b.vqc"]


def test_same_names_from_different_folders_clash_in_one():
    assert len(plan("x/a.png", "y/a.png")) == 2
    with pytest.raises(UsageError, match="x/a.png and y/a.png: both would write out/a.vqc"):
        plan("x/a.png", "y/a.png", output="out/")


def test_clash_behind_a_link_is_seen():
    Path("real").mkdir()
    Path("link").symlink_to("real")
    assert outputs("real/a.png", "link/a.jpg") == ["real/a.png.vqc", "link/a.jpg.vqc"]
    Path("out").mkdir()
    Path("two").symlink_to("out")
    with pytest.raises(UsageError, match="both would write"):
        plan("real/a.png", "x/a.png", output="two/")


def outputs(*names, **options):
    return [str(job.output) for job in plan(*names, **options)]


def test_inputs_that_would_share_a_name_keep_their_suffixes():
    assert outputs("x.jpg", "y.png", "x.png") == ["x.jpg.vqc", "y.vqc", "x.png.vqc"]
    assert outputs("x.jpg", "x.png", "x.jpg.png") == ["x.jpg.vqc", "x.png.vqc", "x.jpg.png.vqc"]
    assert outputs("song.wav", "song.flac", output="o/") == ["o/song.wav.vqc", "o/song.flac.vqc"]
    assert outputs("x.jpg", "x.jpg") == ["x.vqc"]
    assert outputs("x.JPG", "x.jpg") == ["x.JPG.vqc", "x.jpg.vqc"]
    assert outputs("a/x.jpg", "b/x.png") == ["a/x.vqc", "b/x.vqc"]


def test_only_known_suffixes_are_replaced():
    assert outputs("Shot 12.30.45") == ["Shot 12.30.45.vqc"]
    assert outputs("Shot 12.30.45.png", "v1.2.PPM") == ["Shot 12.30.45.vqc", "v1.2.vqc"]
    assert outputs("Shot 12.30.45", "Shot 12.30.jpg") == ["Shot 12.30.45.vqc", "Shot 12.30.vqc"]
    assert outputs("a.b.png", "a.b") == ["a.b.png.vqc", "a.b.vqc"]


def test_pipes_and_sockets_in_folders_are_passed_over():
    Path("d").mkdir()
    Path("d/a.png").touch()
    os.mkfifo("d/p.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("d/s.png")
    found = find("d")
    assert [source.name for source in found.inputs] == ["d/a.png"]
    assert found.passed == [(f"d/{name}.png", "a pipe, device or socket") for name in "ps"]


def test_devices_that_are_named_are_refused_and_pipes_are_streams():
    os.mkfifo("p.png")
    found = find("/dev/zero", "p.png")
    assert [error.message for _, error in found.failed] == ["is a device or socket"]
    assert [source.is_stream for source in found.inputs] == [True]


def test_linked_folders_are_told():
    Path("d/deep").mkdir(parents=True)
    Path("d/deep/a.png").touch()
    Path("d/link").symlink_to("deep")
    assert find("d").passed == [("d/link", "a linked folder; name it to enter it")]
    assert [source.name for source in find("d/link").inputs] == ["d/link/a.png"]
