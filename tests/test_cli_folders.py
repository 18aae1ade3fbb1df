"""Many files: folders, lists and tars in, tars out, while they are found; what is passed over is told."""

import io
import itertools
import tarfile
import tracemalloc
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from cli_fakes import invoke, records
from vqcodec.bitstream import container
from vqcodec.cli import listing, tars


def touch(*names, data=b"p" * 100):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)


def pack(name, *members, **fields):
    with tarfile.open(name, "w") as tar:
        for member in members:
            info = tarfile.TarInfo(member)
            info.size, info.mtime = 100, 1_000_000_000
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(b"p" * info.size))
    return name


def told(result):
    return {r.get("input"): r.get("reason") or r.get("error") or r["status"] for r in records(result)[:-1]}


def outputs(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_what_is_no_input_is_a_record_with_a_reason(fakes, monkeypatch):
    touch("d/a.jpg", "d/b.ppm", "d/c.heic", "d/d.jxl", "d/e.txt", "d/f.vqc")
    monkeypatch.setattr(listing, "IMAGES", frozenset((".jpg", ".ppm")))
    monkeypatch.setattr("vqcodec.cli.paths.IMAGES", frozenset((".jpg", ".ppm")))
    result = invoke("encode", "d", "-r", "--json", "-o", "out/")
    extra = "needs the extra formats: pip install 'vqcodec[formats]'"
    assert told(result) == {
        "d/a.jpg": "ok",
        "d/b.ppm": "ok",
        "d/c.heic": extra,
        "d/d.jxl": extra,
        "d/e.txt": "not an image or audio file",
    }
    assert records(result)[-1] | {"bytes_out": 0} == {
        "type": "summary",
        "ok": 2,
        "failed": 0,
        "skipped": 3,
        "bytes_in": 200,
        "bytes_out": 0,
    }
    assert result.exit_code == 0


def test_names_that_share_a_stem_keep_their_suffixes_folder_by_folder(fakes):
    touch("d/x.jpg", "d/x.png", "d/y.jpg", "d/deep/x.jpg")
    assert invoke("encode", "d", "-r", "-o", "out/").exit_code == 0
    assert outputs("out") == ["deep/x.vqc", "x.jpg.vqc", "x.png.vqc", "y.vqc"]
    # Folders with one output are one folder: nothing is written twice.
    touch("e/x.webp", "e/deep/x.gif")
    assert invoke("encode", "d", "e", "-r", "-o", "both/").exit_code == 0
    assert outputs("both") == [
        *("deep/x.gif.vqc", "deep/x.jpg.vqc", "x.jpg.vqc", "x.png.vqc", "x.webp.vqc", "y.vqc"),
    ]


def test_two_inputs_of_one_name_in_two_folders_are_not_both_written(fakes):
    touch("d/deep/x.png", "e/deep/x.png")
    result = invoke("encode", "d", "e", "-r", "-f", "-o", "out/", "--json")
    assert told(result) == {
        "d/deep/x.png": "ok",
        "e/deep/x.png": "another input would write out/deep/x.vqc too",
    }
    assert result.exit_code == 1


def test_a_file_that_is_named_and_found_is_done_once(fakes):
    touch("d/x.jpg", "d/y.jpg")
    assert list(told(invoke("encode", "d/x.jpg", "d", "d", "-r", "--json")).values()) == ["ok", "ok"]
    touch("d/sub/z.jpg")
    again = invoke("encode", "d", "d/sub", "-r", "--json", "--skip-existing")
    assert list(told(again).values()).count("ok") == 1


def test_lists_of_files(fakes):
    touch("in/a.jpg", "in/deep/a.jpg", "in/odd\nname.jpg")
    Path("list").write_text("in/a.jpg\r\nin/deep/a.jpg\n\nin/gone.jpg\nin\n../up.jpg\n")
    result = invoke("encode", "--files-from", "list", "-o", "out/", "--json")
    assert outputs("out") == ["in/a.jpg.vqc", "in/deep/a.jpg.vqc"]
    assert told(result) == {
        "in/a.jpg": "ok",
        "in/deep/a.jpg": "ok",
        "in/gone.jpg": "no such file",
        "in": "is a folder",
        "../up.jpg": "leads out of the output folder",
    }
    names = f"in/odd\nname.jpg\0{Path('in/a.jpg').resolve()}".encode()
    assert invoke("encode", "--files-from", "-", "-0", "-o", "zero/", input=names).exit_code == 0
    assert sorted(path.name for path in Path("zero").rglob("*.vqc")) == ["a.jpg.vqc", "odd\nname.jpg.vqc"]
    back = invoke("decode", "--files-from", "-", "--null", input=b"out/in/a.jpg.vqc", env={})
    assert (back.exit_code, Path("out/in/a.jpg.decoded.png").is_file()) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-0", "a.png"], "-0 belongs to --files-from"),
        (["--files-from", "gone"], "no file gone to read names from"),
        (["--files-from", "-", "-"], "- is given twice"),
        (["--files-from", "a.png", "-o", "x.vqc"], "-o names a file but the input is a folder"),
        (["a.png", "x.tar"], "a tar and other inputs need an output"),
        (["a.png", "-o", "x.tar", "--skip-existing"], "--skip-existing does not apply to a tar"),
    ],
)
def test_inputs_that_do_not_go_together(fakes, arguments, message):
    pack("x.tar", "a.png")
    result = invoke("encode", *arguments, input=b"")
    assert (result.exit_code, fakes.named("encode_file")) == (2, [])
    assert message in result.stderr


def test_a_tar_becomes_a_tar(fakes):
    pack("photos.tar", "a/x.jpg", "a/x.png", "notes.txt")
    result = invoke("encode", "photos.tar", "--json")
    assert told(result)["photos.tar:notes.txt"] == "not an image or audio file"
    with tarfile.open("photos.vqc.tar") as tar:
        assert tar.getnames() == ["a/x.jpg.vqc", "a/x.png.vqc"]
        assert {member.mtime for member in tar} == {1_000_000_000}
        data = tar.extractfile("a/x.png.vqc").read()
    assert container.read_info(data).model == "fake-image"
    assert invoke("encode", "photos.tar").stderr.startswith("vqcodec: photos.vqc.tar exists\n  hint: replace")
    assert invoke("encode", "photos.tar", "-f", "--no-mtime").exit_code == 0
    assert invoke("decode", "photos.vqc.tar").exit_code == 0
    with tarfile.open("photos.decoded.tar") as tar:
        assert tar.getnames() == ["a/x.jpg.decoded.png", "a/x.png.decoded.png"]
        assert tar.extractfile("a/x.jpg.decoded.png").read().startswith(b"\x89PNG")
    assert invoke("decode", "-t", "photos.vqc.tar").exit_code == 0
    assert invoke("decode", "photos.vqc.tar", "-o", "out/", "--format", "bmp").exit_code == 0
    assert outputs("out") == ["a/x.jpg.decoded.bmp", "a/x.png.decoded.bmp"]


def test_a_folder_becomes_a_tar_and_a_failure_leaves_the_others(fakes):
    touch("d/a.png", "d/deep/b.png")
    touch("d/bad.png", data=b"BAD")
    result = invoke("encode", "d", "-r", "-o", "d.tar")
    assert result.exit_code == 1
    with tarfile.open("d.tar") as tar:
        assert tar.getnames() == ["a.vqc", "deep/b.vqc"]


def test_an_interrupted_tar_does_not_appear_and_the_counts_do(fakes):
    touch("d/a.png", "d/b.png")
    fakes.raises["verify"] = KeyboardInterrupt()
    result = invoke("encode", "d", "-r", "-o", "d.tar", "--verify", "--json")
    assert (result.exit_code, Path("d.tar").exists()) == (130, False)
    assert records(result)[-1]["interrupted"] is True


def test_hostile_tars(fakes):
    limit = tars.MAX_MEMBER + 1
    for number, (name, fields, reason) in enumerate(
        [
            ("../up.png", {}, "its name leads out of the tar"),
            ("/abs.png", {}, "its name leads out of the tar"),
            ("a/../../b.png", {}, "its name leads out of the tar"),
            (
                "link.png",
                {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
                "a link or device in a tar",
            ),
            (
                "hard.png",
                {"type": tarfile.LNKTYPE, "linkname": "a.png", "size": 0},
                "a link or device in a tar",
            ),
            ("dev.png", {"type": tarfile.CHRTYPE, "size": 0}, "a link or device in a tar"),
        ]
    ):
        result = invoke("encode", pack(f"{number}.tar", name, **fields), "-o", "out/", "--json")
        assert told(result)[f"{number}.tar:{name}"] == reason
    assert not Path("out").exists()
    head = tarfile.TarInfo("big.png")
    head.size = limit
    Path("big.tar").write_bytes(head.tobuf() + b"x" * 512)
    assert "larger than 4 GiB" in told(invoke("encode", "big.tar", "--json"))["big.tar:big.png"]
    head.size = -1
    Path("less.tar").write_bytes(head.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)
    assert "larger than 4 GiB" in told(invoke("encode", "less.tar", "--json"))["less.tar:big.png"]
    head.size, head.pax_headers = 0, {"mtime": "nan"}
    Path("when.tar").write_bytes(head.tobuf(tarfile.PAX_FORMAT))
    assert "internal error" not in invoke("encode", "when.tar", "-o", "when/").stderr
    head.pax_headers = {}
    head.size = 1000
    Path("cut.tar").write_bytes(head.tobuf() + b"x" * 512)
    assert "not a tar that can be read" in told(invoke("encode", "cut.tar", "--json"))["cut.tar"]
    Path("zip.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    assert "unpack it first" in invoke("encode", "zip.tar").stderr
    assert (
        told(invoke("encode", pack("none.tar", "x.txt"), "--json"))["none.tar"]
        == "no images or audio files in it"
    )


@pytest.mark.parametrize("name", ["a/b.png", "a/./b.png", "a b.png", "…/x"])
def test_names_below_a_folder(name):
    for flavour in (PurePosixPath, PureWindowsPath):
        assert tars.relative(name, flavour) == flavour(name)


@pytest.mark.parametrize(
    ("name", "flavours"),
    [
        ("../x", "pw"),
        ("a/../x", "pw"),
        ("/x", "pw"),
        ("", "pw"),
        (".", "pw"),
        ("a\0b", "pw"),
        ("C:/x", "w"),
        ("C:x", "w"),
        (r"\x", "w"),
        (r"a\..\..\x", "w"),
        (r"\\host\share\x", "w"),
    ],
)
def test_names_that_lead_elsewhere(name, flavours):
    for letter, flavour in (("p", PurePosixPath), ("w", PureWindowsPath)):
        assert (tars.relative(name, flavour) is None) == (letter in flavours)


def test_a_listing_begins_at_once_and_holds_one_folder(tmp_path):
    for folder in range(30):
        (tmp_path / f"{folder:02}").mkdir()
        for file in range(40):
            (tmp_path / f"{folder:02}/{file:02}.png").touch()

    def walk():
        return listing.find_each([str(tmp_path)], recursive=True, suffixes={".png"}, what="images")

    whole = sum(len(found.inputs) for found in walk())
    assert whole == 1200
    tracemalloc.start()
    try:
        for _ in itertools.islice(walk(), 3):
            tracemalloc.reset_peak()
        few = tracemalloc.get_traced_memory()[1]
        for _ in walk():
            pass
        assert tracemalloc.get_traced_memory()[1] < few + 100_000  # one Input takes about a kilobyte
    finally:
        tracemalloc.stop()
