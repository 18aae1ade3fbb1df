"""`vqcodec encode`: where results go, and what is never overwritten."""

import os
import sys
from pathlib import Path

import pytest
from cli_fakes import invoke
from vqcodec.bitstream import container


def test_existing_output_is_refused_before_work_replaced_or_skipped(fakes):
    Path("a.vqc").write_bytes(b"precious")
    result = invoke("encode", "a.png", "b.png")
    assert result.exit_code == 1
    assert (
        "vqcodec: a.png: a.vqc exists\n  hint: replace it with -f, or skip it with --skip-existing"
        in result.stderr
    )
    assert Path("a.vqc").read_bytes() == b"precious"
    assert Path("b.vqc").exists()
    assert [call["source"] for call in fakes.named("encode_file")] == [Path("b.png")]

    result = invoke("encode", "a.png", "b.png", "--skip-existing")
    assert (result.exit_code, Path("a.vqc").read_bytes()) == (0, b"precious")

    assert invoke("encode", "a.png", "-f").exit_code == 0
    assert Path("a.vqc").read_bytes().startswith(container.MAGIC)
    assert invoke("encode", "a.png", "--force", "--skip-existing").exit_code == 2


def test_two_inputs_with_one_name_keep_their_suffixes(fakes):
    Path("a.jpg").write_bytes(b"jpg")
    assert invoke("encode", "a.png", "a.jpg", "b.png").exit_code == 0
    assert sorted(os.listdir()) == ["a.jpg", "a.jpg.vqc", "a.png", "a.png.vqc", "b.png", "b.vqc"]
    assert invoke("decode", "a.jpg.vqc", "a.png.vqc", "-o", "out/").exit_code == 0
    assert sorted(os.listdir("out")) == ["a.jpg.decoded.png", "a.png.decoded.png"]


def test_two_inputs_with_one_output(fakes):
    for name in ("x/a.png", "y/a.png"):
        Path(name).parent.mkdir()
        Path(name).write_bytes(b"png")
    result = invoke("encode", "x/a.png", "y/a.png", "-o", "out/")
    assert result.exit_code == 2
    assert "x/a.png and y/a.png: both would write out/a.vqc" in result.stderr
    assert "hint: write them to different folders with -o" in result.stderr
    assert fakes.calls == []


def test_a_pipe_with_the_name_of_an_output_is_not_written_to(fakes):
    os.mkfifo("a.vqc")
    result = invoke("encode", "a.png", "b.png", "-f")
    assert result.exit_code == 1
    assert (
        "vqcodec: a.png: a.vqc is a pipe, device or socket\n  hint: write elsewhere with -o" in result.stderr
    )
    assert Path("b.vqc").exists()
    assert invoke("encode", "a.png", "-o", "/dev/null").exit_code == 0


def test_folders_with_pipes_and_links_end_and_tell(fakes):
    Path("d").mkdir()
    Path("d/a.png").write_bytes(b"png")
    os.mkfifo("d/p.png")
    Path("d/link").symlink_to("..")
    result = invoke("encode", "d", "-r", "-o", "out/")
    assert (result.exit_code, os.listdir("out")) == (0, ["a.vqc"])
    assert "d/p.png: skipped, a pipe, device or socket\n" in result.stderr
    assert "d/link: skipped, a linked folder; name it to enter it\n" in result.stderr
    result = invoke("evaluate", "d", "d/p.png")
    assert "d/p.png: a pipe can be read only once\n  hint: measure a file" in result.stderr
    assert [call["sources"] for call in fakes.named("evaluate")] == [[Path("d/a.png")]]


def test_output_equal_to_input_is_refused_even_with_force(fakes):
    for arguments in (["a.png", "-o", "a.png"], ["a.png", "-o", "./a.png"], ["a.png", "-o", "hard.png"]):
        if not Path("hard.png").exists():
            os.link("a.png", "hard.png")
        result = invoke("encode", *arguments, "-f")
        assert result.exit_code == 2
        assert "would overwrite its own input" in result.stderr
    assert Path("a.png").read_bytes() == b"a" * 1000


def test_output_that_is_another_input_is_refused(fakes):
    Path("out").mkdir()
    Path("out/a.vqc").write_bytes(b"x")
    result = invoke("encode", "a.png", "out/a.vqc", "-o", "out/", "-f")
    assert result.exit_code == 2
    assert "would overwrite" in result.stderr


def test_one_file_name_for_many_inputs(fakes):
    result = invoke("encode", "a.png", "b.png", "-o", "x.vqc")
    assert result.exit_code == 2
    assert "-o names a file but there are 2 inputs\n  hint: end the name of a folder with /" in result.stderr


def test_output_folders(fakes):
    assert invoke("encode", "a.png", "b.png", "-o", "new/deep/").exit_code == 0
    assert sorted(os.listdir("new/deep")) == ["a.vqc", "b.vqc"]
    Path("there").mkdir()
    assert invoke("encode", "a.png", "--output", "there").exit_code == 0
    assert os.listdir("there") == ["a.vqc"]
    result = invoke("encode", "a.png", "-o", "absent/x.vqc")
    assert (result.exit_code, "no folder absent" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", ["digits.npz", "digits-idx3-ubyte.gz"])
def test_how_a_set_in_a_folder_is_encoded_is_told(fakes, name):
    Path("holiday").mkdir()
    for inside in (name, "a.png"):
        Path("holiday", inside).write_bytes(b"p" * 100)
    result = invoke("encode", "holiday", "-r", "-o", "packed/")
    assert f"holiday/{name}: skipped, a set of pictures; name the file itself to encode it" in result.stderr
    assert invoke("decode", "holiday", "-r").stderr.count("not a bitstream") == 2


def test_folders_are_mirrored_and_foreign_files_told(fakes):
    for name in ("holiday/one.jpg", "holiday/day/two.PNG", "holiday/notes.txt", "holiday/old.vqc"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"p" * 100)
    Path("holiday/.hidden.png").write_bytes(b"p")
    result = invoke("encode", "holiday", "-r", "-o", "packed/")
    assert result.exit_code == 0
    assert sorted(str(p) for p in Path("packed").rglob("*.vqc")) == ["packed/day/two.vqc", "packed/one.vqc"]
    assert "holiday/notes.txt: skipped, not an image or audio file" in result.stderr
    assert "old.vqc" not in result.stderr
    assert "2 of 3 files, 1 skipped  200 B -> " in result.stderr
    assert fakes.named("choose_device") == [{"device": "auto"}]


def test_folder_without_recursion_and_barren_folder(fakes):
    Path("dir").mkdir()
    result = invoke("encode", "dir", "a.png")
    assert result.exit_code == 1
    assert "vqcodec: dir: is a folder\n  hint: add -r" in result.stderr
    assert Path("a.vqc").exists()
    result = invoke("encode", "dir", "--recursive")
    assert (result.exit_code, "no images or audio files in dir" in result.stderr) == (2, True)


def test_missing_file_names_the_nearest_and_the_rest_is_done(fakes):
    result = invoke("encode", "A.pgn", "b.png")
    assert result.exit_code == 1
    assert "vqcodec: A.pgn: no such file\n  hint: is it a.png?" in result.stderr
    assert Path("b.vqc").exists()
    assert "1 of 2 files, 1 failed" in result.stderr


def test_nothing_is_loaded_for_a_missing_file(fakes):
    assert invoke("encode", "zzz.png").exit_code == 1
    assert fakes.calls == []


def test_stdin_goes_to_stdout(fakes):
    result = invoke("encode", "-", input=b"abc")
    assert result.exit_code == 0
    assert result.stdout_bytes.startswith(container.MAGIC)
    assert fakes.named("encode_file")[0]["source"] == b"abc"
    result = invoke("encode", "-", "-o", "x.vqc", input=b"abc")
    assert (result.exit_code, result.stdout_bytes) == (0, b"")
    assert Path("x.vqc").exists()
    assert invoke("encode", "-", "-", input=b"abc").exit_code == 2
    result = invoke("encode", "-", input=b"")
    assert (result.exit_code, "vqcodec: stdin: empty file" in result.stderr) == (1, True)


def test_file_to_stdout(fakes):
    result = invoke("encode", "a.png", "-o", "-")
    assert result.stdout_bytes.startswith(container.MAGIC)
    assert invoke("encode", "a.png", "b.png", "-o", "-").exit_code == 2
    assert invoke("encode", "a.png", "-o", "-", "--json").exit_code == 2


def test_no_binary_to_a_terminal(fakes, monkeypatch):
    monkeypatch.setattr("vqcodec.cli.paths.is_terminal", lambda stream: stream is sys.stdout)
    result = invoke("encode", "-", input=b"abc")
    assert result.exit_code == 2
    assert "not writing binary to a terminal\n  hint: name a file with -o FILE" in result.stderr


def test_no_reading_from_a_terminal(fakes, monkeypatch):
    monkeypatch.setattr("vqcodec.cli.listing.is_terminal", lambda stream: stream is sys.stdin)
    assert invoke("encode", "-", input=b"abc").exit_code == 2


def test_dry_run_writes_nothing_and_runs_no_network(fakes):
    Path("b.vqc").write_bytes(b"there")
    result = invoke("encode", "a.png", "b.png", "--dry-run", "--bpp", "0.4")
    assert result.exit_code == 1
    assert result.stdout == "a.png -> a.vqc  model fake-image  bpp 0.4\n"
    assert "b.vqc exists" in result.stderr
    assert not Path("a.vqc").exists()
    assert fakes.calls == []
    assert invoke("encode", "a.png", "--dry-run", "-m", "wrong").exit_code == 2
