from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import draw
from vqcodec.errors import TrainingError, UsageError
from vqcodec.training import datasets
from vqcodec.training.datasets import Degradation, Entry, Images
from vqcodec.transform.pixels import to_pixels, to_samples


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo("inner")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def numbered(width: int = 40, height: int = 24, count: int = 4) -> Images:
    """Images whose every pixel tells which it is and where: (picture, row, column)."""
    rows, columns = np.mgrid[0:height, 0:width]
    arrays = [
        np.stack([np.full_like(rows, n), rows, columns], 2).astype(np.uint8) for n in range(1, count + 1)
    ]
    return Images(arrays, [str(n) for n in range(count)], [])


def test_streams_of_random_numbers_do_not_meet() -> None:
    """Steps and pictures are counted up from the start of their stream, and are fewer than 2**40."""
    starts = sorted([0, datasets.SPLIT, datasets.WINDOWS, datasets.START])
    assert all(b - a >= 1 << 40 for a, b in zip(starts, starts[1:], strict=False))


def test_folders_tars_and_files_in_a_fixed_order(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    contents = {name: png(draw(16, 12, n)) for n, name in enumerate(["b.png", "a.png", "deep/c.png"])}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / ".hidden.png").write_bytes(b"x")
    archive = tar(tmp_path / "more.tar", {"inner/z.png": png(draw(8, 8, 7)), "y.png": png(draw(9, 8, 8))})
    single = folder / "b.png"
    found = datasets.entries([archive, folder, single])
    assert [entry.name for entry in found] == [
        *("more.tar:inner/z.png", "more.tar:y.png"),
        *(str(folder / name) for name in ("a.png", "b.png", "deep/c.png")),
        str(single),
    ]
    assert [entry.read() for entry in found[2:]] == [
        contents[n] for n in ("a.png", "b.png", "deep/c.png", "b.png")
    ]
    pictures = datasets.load(found)
    assert pictures.skipped == []
    assert np.array_equal(pictures.arrays[0], draw(8, 8, 7))
    assert np.array_equal(pictures.arrays[1], draw(9, 8, 8))
    assert pictures.names == [entry.name for entry in found]


def test_sources_that_are_not_there_or_cannot_be_entered(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gone: no such folder or tar file"):
        datasets.entries([tmp_path / "gone"])
    members = {f"{n}.png": png(draw(16, 12, n)) for n in range(3)}
    squeezed = tar(tmp_path / "a.tar.gz", members, "w:gz")
    with pytest.raises(UsageError, match=r"a\.tar\.gz: a compressed or damaged tar file") as caught:
        datasets.entries([squeezed])
    assert caught.value.hint == "unpack it first"
    whole = tar(tmp_path / "b.tar", members)
    content = whole.read_bytes()
    end = content.rindex(b"IEND") + 8
    for cut in (1000, 1700, 2048, 2600, end, end + 500):
        whole.write_bytes(content[:cut])
        with pytest.raises(UsageError, match="compressed or damaged"):
            datasets.entries([whole])
    assert datasets.entries([tar(whole, members)])[0].read() == members["0.png"]


def test_broken_files_are_skipped_and_listed(tmp_path: Path) -> None:
    good = png(draw(16, 12))
    (tmp_path / "a.png").write_bytes(good)
    (tmp_path / "b.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "c.txt").write_bytes(b"notes")
    (tmp_path / "d.png").touch()
    (tmp_path / "e.png").symlink_to(tmp_path / "gone.png")
    archive = tar(tmp_path / "t.tar", {"ok.png": good, "bad.png": b"\x89PNG\r\n\x1a\n"})
    pictures = datasets.load([*datasets.entries([tmp_path]), *datasets.entries([archive])])
    assert pictures.names == [str(tmp_path / "a.png"), "t.tar:ok.png"]
    told = dict(line.removeprefix(f"{tmp_path}/").split(": ", 1) for line in pictures.skipped)
    assert set(told) == {"b.png", "c.txt", "d.png", "t.tar", "t.tar:bad.png"}
    assert told["b.png"] == "truncated PNG"
    assert told["c.txt"].startswith("not an image")
    assert told["d.png"] == "empty file"


def test_a_file_that_vanishes_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(draw(8, 8)))
    pictures = datasets.load([Entry(None, str(tmp_path / "a.png")), Entry(None, str(tmp_path / "gone.png"))])
    assert len(pictures) == 1
    assert pictures.skipped[0].startswith(f"{tmp_path / 'gone.png'}: ")


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(TrainingError, match="no readable images"):
        datasets.load(datasets.entries([tmp_path]))
    with pytest.raises(TrainingError, match="no readable images"):
        datasets.load([])


def test_gray_sixteen_bit_and_animated_pictures_are_taken_without_a_word(tmp_path: Path) -> None:
    gray = draw(10, 9)[:, :, 0]
    PIL.Image.fromarray(gray).save(tmp_path / "a.png")
    PIL.Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "b.png")
    frames = [PIL.Image.fromarray(draw(10, 9, n)) for n in range(2)]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    pictures = datasets.load(datasets.entries([tmp_path]))
    assert [array.shape for array in pictures.arrays] == [(9, 10, 3)] * 3
    assert pictures.skipped == []
    for array in pictures.arrays[:2]:
        assert np.array_equal(array, np.repeat(gray[:, :, None], 3, 2))


def test_large_pictures_become_windows_of_themselves(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:700, 0:1100]
    pixels = np.stack([rows // 4, columns // 5, (rows + columns) % 251], 2).astype(np.uint8)
    (tmp_path / "large.png").write_bytes(png(pixels))
    (tmp_path / "small.png").write_bytes(png(draw(60, 50)))
    files = datasets.entries([tmp_path])
    pictures = datasets.load(files, seed=3)
    assert pictures.names == [str(tmp_path / "large.png")] * 6 + [str(tmp_path / "small.png")]
    windows = pictures.arrays[:6]
    assert {window.shape for window in windows} == {(512, 512, 3)}
    for window in windows:
        # The first code of a window almost tells its place; the third channel settles it.
        places = np.argwhere((pixels[:189, :589] == window[0, 0]).all(2))
        assert any(np.array_equal(pixels[top : top + 512, left : left + 512], window) for top, left in places)
        assert window.base is None, "a view would keep the whole picture in memory"
    again = datasets.load(files, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(pictures.arrays, again.arrays, strict=True))
    other = datasets.load(files, seed=4)
    assert not all(np.array_equal(a, b) for a, b in zip(pictures.arrays, other.arrays, strict=True))
    whole = datasets.load(files, whole=True)
    assert [array.shape for array in whole.arrays] == [(700, 1100, 3), (50, 60, 3)]


@pytest.mark.parametrize("memory", [400_000, 100_000])
def test_windows_stay_within_memory(tmp_path: Path, memory: int) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(np.full((300, 400, 3), number, np.uint8)))
    pictures = datasets.load(datasets.entries([tmp_path]), memory=memory)
    assert memory / 2 < sum(array.nbytes for array in pictures.arrays) <= memory
    assert [array[0, 0, 0] for array in pictures.arrays] == list(range(4)), "all pictures take part"


def test_a_batch_depends_on_step_and_seed_alone() -> None:
    pictures = numbered()
    first = pictures.batch(5, seed=1, size=8, crop=16)
    pictures.batch(6, seed=1, size=3, crop=8)
    np.random.default_rng().random()
    torch.rand(3)
    assert torch.equal(numbered().batch(5, seed=1, size=8, crop=16), first)
    others = {pictures.batch(step, seed=1, size=8, crop=16).numpy().tobytes() for step in range(40)}
    assert len(others) == 40
    assert not torch.equal(pictures.batch(5, seed=2, size=8, crop=16), first)
    # The data order does not change with the size of the batch.
    assert torch.equal(pictures.batch(5, seed=1, size=3, crop=16), first[:3])


def test_crops_and_flips_are_real_pixels() -> None:
    pictures = numbered()
    batch = pictures.batch(0, seed=0, size=400, crop=16)
    assert batch.shape == (400, 3, 16, 16)
    assert batch.dtype == torch.float32
    seen, flips = set(), 0
    for pixels in to_pixels(batch):
        number, top = int(pixels[0, 0, 0]), int(pixels[0, 0, 1])
        left, flipped = int(pixels[0, :, 2].min()), pixels[0, 0, 2] > pixels[0, 1, 2]
        original = pictures.arrays[number - 1][top : top + 16, left : left + 16]
        assert np.array_equal(pixels, original[:, ::-1] if flipped else original)
        seen.add((number, top, left))
        flips += bool(flipped)
    assert {n for n, _, _ in seen} == {1, 2, 3, 4}
    assert {t for _, t, _ in seen} == set(range(24 - 16 + 1)), "every row can begin a crop, the last too"
    assert {c for _, _, c in seen} == set(range(40 - 16 + 1))
    assert 160 < flips < 240


def test_crops_are_downscaled_between_the_root_of_a_factor_and_itself() -> None:
    """Rows and columns of the numbered images then count up by it."""
    data = numbered(200, 180).degraded(Degradation(4.0))
    steps = []
    for step in range(40):
        pixels = to_pixels(data.batch(step, seed=0, size=1, crop=24))[0].astype(int)
        assert np.ptp(pixels[:, :, 0]) == 0, "one picture"
        steps += [np.ptp(pixels[4:-4, 5, 1]) / 15, np.ptp(pixels[5, 4:-4, 2]) / 15]
    assert 1.9 < min(steps) < 2.4 and 3.5 < max(steps) < 4.1


def test_noise_is_of_every_strength_and_drawn_again_for_every_step() -> None:
    data = Images([np.full((90, 90, 3), 128, np.uint8)], ["gray"], []).degraded(Degradation(noise=8.0))
    batches = [to_pixels(data.batch(step, seed=0, size=8, crop=64)).astype(int) for step in range(6)]
    assert np.array_equal(batches[2], to_pixels(data.batch(2, seed=0, size=8, crop=64)))
    spread = np.array([crop.std() for batch in batches for crop in batch])
    assert 0.1 < (spread == 0).mean() < 0.6, "some have none"
    assert 4 < spread.max() < 9
    once = data.degraded_once(Degradation(1.5, 8.0)).arrays[0]
    assert np.array_equal(once, data.degraded_once(Degradation(1.5, 8.0)).arrays[0])
    assert 60 <= len(once) <= 74 and data.degraded_once(Degradation()).arrays[0].std() == 0


def test_coarse_chroma_leaves_luma_alone() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(60, 190, (1, 48, 64, 3), dtype=np.uint8)
    data = Images([*pixels], ["noise"], [])
    found = data.degraded_once(Degradation(coarse_chroma=1.0)).arrays[0]
    weights = np.array([0.299, 0.587, 0.114])
    chroma, before = (x[..., 0] - x @ weights for x in (found.astype(float), pixels[0].astype(float)))
    assert np.abs(found @ weights - pixels[0] @ weights).max() < 3
    assert chroma.std() < 0.6 * before.std()


def test_samples_are_in_minus_one_to_one_and_back() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    samples = to_samples(values)
    assert (float(samples.min()), float(samples.max())) == (-1, 1)
    assert np.array_equal(to_pixels(samples), values)
    assert np.array_equal(to_pixels(samples * 2)[0, 0, 0], [0] * 3), "clipped"
    assert samples.is_contiguous(memory_format=torch.channels_last)


def test_small_pictures_are_extended_by_their_edge() -> None:
    picture = draw(9, 5, 1)
    batch = Images([picture], ["a"], []).batch(0, seed=0, size=6, crop=16)
    extended = np.pad(picture, ((0, 11), (0, 7), (0, 0)), mode="edge")
    flips = set()
    for pixels in to_pixels(batch):
        flipped = np.array_equal(pixels, extended[:, ::-1])
        assert flipped or np.array_equal(pixels, extended)
        flips.add(flipped)
    assert flips == {False, True}


@pytest.mark.parametrize(
    ("count", "fraction", "held"), [(100, 0.05, 5), (12, 0.05, 1), (2, 0.05, 1), (2, 0.99, 1), (10, 0.5, 5)]
)
def test_split(count: int, fraction: float, held: int) -> None:
    files = [Entry(None, str(n)) for n in range(count)]
    training, validation = datasets.split(files, fraction, 0)
    assert len(validation) == held
    assert sorted([*training, *validation], key=lambda e: int(e.path)) == files
    assert training == sorted(training, key=lambda e: int(e.path)), "the order of the files stays"
    assert datasets.split(files, fraction, 0) == (training, validation)
    if count == 100:
        assert datasets.split(files, fraction, 1)[1] != validation


@pytest.mark.parametrize("seed", range(4))
def test_what_is_held_out_can_be_read(tmp_path: Path, seed: int) -> None:
    """However the dice fall: unreadable files are neither the validation nor a reason to give up."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(draw(16, 12, number)))
        (tmp_path / f"{number}.txt").write_text("notes")
    training, validation = datasets.load_split(datasets.entries([tmp_path]), 0.05, seed)
    assert len(validation) == 1
    assert len(training) == 2
    assert not set(training.names) & set(validation.names)
    assert (
        len({*training.skipped, *validation.skipped}) == len(training.skipped) + len(validation.skipped) == 3
    )


def test_one_readable_picture_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(draw(16, 12)))
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("notes")
    with pytest.raises(TrainingError, match="no readable images"):
        datasets.load_split(datasets.entries([tmp_path]), 0.3, 0)


def test_describe(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(draw(8, 8)))
    archive = tar(tmp_path / "t.tar", {"a.png": png(draw(8, 8))})
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert datasets.describe([folder, archive]) == [
        {"name": "folder", "files": 1},
        {"name": "t.tar", "bytes": archive.stat().st_size, "sha256": digest},
    ]


def test_validation_keeps_the_middle_of_what_memory_cannot_hold() -> None:
    pixels = draw(300, 200)
    assert datasets.image._middle(pixels, pixels.nbytes) is pixels
    kept = datasets.image._middle(pixels, pixels.nbytes // 4)
    assert kept.shape == (100, 150, 3)
    assert np.array_equal(kept, pixels[50:150, 75:225])
