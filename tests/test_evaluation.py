"""`evaluate` against a stand-in codec whose figures are known."""

import csv
import io
import json
import math
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from vqcodec import evaluation, media, pipeline, weights
from vqcodec.errors import MediaError, UsageError, VqcodecWarning
from vqcodec.evaluation import disk, evaluate, tables
from vqcodec.evaluation import image as image_rows
from vqcodec.evaluation.baselines import image as baselines
from vqcodec.evaluation.baselines.image import QualitySweep
from vqcodec.metrics.image import psnr
from vqcodec.models import build
from vqcodec.models.base import Card
from vqcodec.models.vqvae.image import Config
from vqcodec.pipeline import Target
from vqcodec.transform.pixels import to_samples


def photo(height, width, channels=3, seed=0):
    """Smooth shapes with edges and a little noise: compressible as photographs are."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / 17 + seed) * np.cos(y / 23), np.sin((x + y) / 41), (x > y).astype(np.float32) - 0.5]
    mix = random.uniform(-1, 1, (channels, 3)) * 60
    planes = [sum(m * w for m, w in zip(row, waves, strict=True)) for row in mix]
    noise = random.normal(0, 4, (height, width, channels))
    return np.clip(np.stack(planes, 2) + 128 + noise, 0, 255).astype(np.uint8)


def image(samples):
    return media.read_image(samples)


@pytest.mark.parametrize("codec", baselines.available())
@pytest.mark.parametrize("channels", [1, 3])
def test_another_codec_stands_between_two_real_neighbouring_files(codec, channels):
    sweep = QualitySweep(image(photo(176, 200, channels)), codec)
    size = (sweep.size(40) + sweep.size(41)) // 2 + 1
    row = sweep.matched_to(size)
    assert row["matched"] and row["bytes"] == size
    assert row["q_high"] == row["q_low"] + 1
    assert row["bytes_low"] <= size < row["bytes_high"]
    low, high = sweep.figures(row["q_low"]), sweep.figures(row["q_high"])
    assert (low["bytes"], high["bytes"]) == (row["bytes_low"], row["bytes_high"])
    share = math.log(size / low["bytes"]) / math.log(high["bytes"] / low["bytes"])
    for name in ("psnr_db", "ms_ssim", "ssimulacra2"):
        assert row[name] == pytest.approx(low[name] + share * (high[name] - low[name]))
    assert row["psnr_db"] > 25
    shown = sweep.decoded(row["q_low"])
    assert shown.samples.shape == (176, 200, channels)
    assert psnr(photo(176, 200, channels), shown.samples) == low["psnr_db"]


def test_a_file_of_exactly_our_size_is_taken_as_it_is():
    sweep = QualitySweep(image(photo(64, 64)), "jpeg")
    row = sweep.matched_to(sweep.size(50))
    assert row["bytes_low"] == sweep.size(50)
    assert row["psnr_db"] == sweep.figures(row["q_low"])["psnr_db"]
    assert row["ms_ssim"] is None


def test_sizes_out_of_reach_are_reported_as_they_are():
    sweep = QualitySweep(image(photo(64, 64)), "jpeg")
    for size, edge in ((10, 1), (10**7, 100)):
        row = sweep.matched_to(size)
        assert row["matched"] is False
        assert (row["q"], row["bytes"], row["bytes_low"]) == (edge, sweep.size(edge), sweep.size(edge))
        assert row["psnr_db"] == sweep.figures(edge)["psnr_db"]
    largest = sweep.matched_to(sweep.size(100))
    assert largest["matched"] is True


def test_jpeg_is_coded_with_halved_chroma():
    data, _ = QualitySweep(image(photo(64, 64)), "jpeg").file(75)
    layers = PillowImage.open(io.BytesIO(data)).layer
    assert [layer[1:3] for layer in layers] == [(2, 2), (1, 1), (1, 1)]


def test_an_image_too_wide_for_a_codec_is_an_error():
    sweep = QualitySweep(image(np.zeros((1, 16390, 3), np.uint8)), "webp")
    with pytest.raises(MediaError, match="webp cannot hold 16390 x 1"):
        sweep.matched_to(100)


@dataclass
class Encoded:
    """What the stand-in encoder gives: the interface of the real one."""

    data: bytes
    model: str
    quality: int
    estimate_bits: float
    count: int = 500

    @property
    def raw_bits(self):
        return 16 * len(self.data)

    @property
    def bits_per_code(self):
        return 8 * len(self.data) / self.count


@pytest.fixture
def codec(monkeypatch):
    """A codec that is JPEG: point q has quality 20 q, so that its figures can be checked outside."""
    calls = []

    def load(model=None, device="auto"):
        if model == "absent":
            raise UsageError("no model 'absent'")
        points = [{"quality": 1}, {"quality": 3}]
        name = "fake" if model != "other" else "other"
        card, at = Card(name, "image", "fake", {}, points=points), lambda index: SimpleNamespace(index=index)
        return SimpleNamespace(card=card, medium="image", points=256, at=at)

    def encode_file(source, options):
        calls.append({name: getattr(options, name) for name in ("model", "quality", "effort", "device")})
        assert options.target == Target("quality", options.quality)
        data, _ = QualitySweep(source, "jpeg").file(int(20 * options.quality))
        name = "other" if options.model == "other" else "fake"
        return Encoded(data, name, options.quality, 8.0 * len(data) - 80)

    def decode(data, *, model=None, device="auto"):
        return media.read_image(data)

    monkeypatch.setattr(weights, "load", load)
    monkeypatch.setattr(pipeline, "encode_file", encode_file)
    monkeypatch.setattr(pipeline, "decode", decode)
    return calls


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "images"
    inside.mkdir()
    for number, shape in enumerate([(176, 200), (90, 120)]):
        PillowImage.fromarray(photo(*shape, seed=number)).save(inside / f"{number}.png")
    (inside / "notes.txt").write_text("no image")
    return inside


def test_evaluate_measures_files_of_all_points_and_the_others_beside_them(folder, codec):
    seen = []
    rows = evaluate(folder, against=["jpeg", "webp"], effort=2, progress=lambda *step: seen.append(step))
    assert [row["codec"] for row in rows] == ["fake", "jpeg", "webp"] * 4
    assert all(tuple(row) == image_rows.COLUMNS for row in rows)
    assert [call["quality"] for call in codec] == [1, 3, 1, 3]
    assert {call["effort"] for call in codec} == {2}
    assert seen == [(n, 12) for n in range(1, 13)]
    ours, jpeg = rows[0], rows[1]
    sweep = QualitySweep(image(photo(176, 200)), "jpeg")
    assert ours["file"] == str(folder / "0.png")
    assert ours["bytes"] == sweep.size(20)
    assert ours["bpp"] == sweep.size(20) * 8 / (176 * 200)
    assert ours["estimate_bpp"] == pytest.approx(ours["bpp"] - 80 / (176 * 200))
    assert ours["psnr_db"] == psnr(photo(176, 200), media.read_image(sweep.file(20)[0]).samples)
    assert ours["bits_per_code"] == 8 * sweep.size(20) / 500
    assert ours["saving"] == pytest.approx(0.5)
    assert ours["gap"] == pytest.approx(8 * sweep.size(20) / (8 * sweep.size(20) - 80) - 1)
    assert jpeg["bits_per_code"] is jpeg["saving"] is jpeg["gap"] is None
    # The stand-in is JPEG itself: at its bytes, JPEG must come out as it does.
    assert (jpeg["bytes"], jpeg["psnr_db"], jpeg["ms_ssim"]) == (
        ours["bytes"],
        ours["psnr_db"],
        ours["ms_ssim"],
    )
    assert jpeg["same_bytes_as"] == "fake q1"
    assert rows[6]["ms_ssim"] is None


def test_others_are_measured_over_their_own_range_too(folder, codec):
    seen = []
    rows = evaluate(
        folder / "1.png", quality=3, against=["jpeg"], sweep=True, progress=lambda *step: seen.append(step)
    )
    own = [row for row in rows if row["codec"] == "jpeg" and not row["same_bytes_as"]]
    assert [row["q"] for row in own] == list(baselines.BASELINES["jpeg"].sweep)
    assert seen[-1] == (len(rows), len(rows)) == (14, 14)
    for row in own:
        data, _ = QualitySweep(image(photo(90, 120, seed=1)), "jpeg").file(row["q"])
        assert row["bytes"] == len(data) and row["bpp"] == len(data) * 8 / (90 * 120)
        assert row["file"] == str(folder / "1.png") and row["matched"] is None
    assert len(evaluation.summary(rows)) == 14, "each quality has its own mean"


def test_jpeg_xl_without_its_package_is_refused(folder, codec, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    assert "jxl" not in baselines.available()
    with pytest.raises(UsageError, match=r"vqcodec\[formats\]"):
        evaluate(folder, against=["jxl"])
    assert codec == []


def test_means_leave_files_without_error_out_and_count_them():
    row = dict.fromkeys(image_rows.COLUMNS) | {"codec": "ours", "q": 1, "width": 8, "height": 8, "bytes": 9}
    row |= {"encode_seconds": 1.0, "decode_seconds": 1.0, "bpp": 2.0}
    (mean,) = evaluation.summary([row | {"psnr_db": math.inf}, row | {"psnr_db": 40.0}])
    assert (mean["psnr_db"], mean["identical"], mean["files"]) == (40.0, 1, 2)
    (mean,) = evaluation.summary([row | {"psnr_db": math.inf}])
    assert (mean["psnr_db"], mean["identical"]) == (None, 1)


def test_evaluate_takes_chosen_models_and_points(folder, codec):
    rows = evaluate([folder / "1.png"], model=["fake", "other"], quality=[2, 4], device="cpu")
    assert [(row["codec"], row["q"]) for row in rows] == [
        ("fake", 2),
        ("fake", 4),
        ("other", 2),
        ("other", 4),
    ]
    rows = evaluate(str(folder / "1.png"), model=["a/best.safetensors", "b/best.safetensors"], quality=2)
    assert [row["codec"] for row in rows] == ["a/best.safetensors", "b/best.safetensors"]


def test_save_decoded_keeps_reconstructions_apart(folder, codec, tmp_path):
    twin = tmp_path / "0.png"
    PillowImage.fromarray(photo(40, 40)).save(twin)
    rows = evaluate([folder, twin], quality=[1], save_decoded=tmp_path / "decoded")
    names = sorted(path.name for path in (tmp_path / "decoded").iterdir())
    assert names == ["000-0.png.fake.q1.png", "002-0.png.fake.q1.png", "1.fake.q1.png"]
    kept = media.read_image(tmp_path / "decoded" / "1.fake.q1.png")
    assert psnr(photo(90, 120, seed=1), kept.samples) == rows[1]["psnr_db"]


def test_metadata_and_an_opaque_alpha_do_not_count(codec, tmp_path):
    pillow = PillowImage.fromarray(photo(64, 64))
    pillow.save(tmp_path / "plain.png")
    pillow.putalpha(255)  # another one weighs the pixels, see tests/faults/test_image_hidden.py
    exif = PillowImage.Exif()
    exif[0x010E] = "words" * 1000
    pillow.save(tmp_path / "loaded.png", exif=exif)
    plain, loaded = evaluate([tmp_path / "plain.png", tmp_path / "loaded.png"], quality=3)
    assert plain["bytes"] == loaded["bytes"]
    assert plain["psnr_db"] == loaded["psnr_db"]


def test_a_broken_image_raises_or_is_handed_over(folder, codec):
    (folder / "0.png").write_bytes(b"nothing of the kind")
    with pytest.raises(MediaError):
        evaluate(folder)
    failed, seen = [], []
    rows = evaluate(
        folder,
        quality=3,
        progress=lambda *step: seen.append(step),
        on_error=lambda path, error: failed.append((path.name, type(error))),
    )
    assert failed == [("0.png", MediaError)]
    assert [row["file"] for row in rows] == [str(folder / "1.png")]
    assert seen == [(2, 2)]


def test_what_cannot_be_evaluated_is_refused_before_any_work(folder, codec, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="no images or audio in"):
        evaluate(empty)
    with pytest.raises(UsageError, match="nothing to evaluate"):
        evaluate([])
    with pytest.raises(MediaError, match="no such file"):
        evaluate(tmp_path / "absent.png")
    with pytest.raises(UsageError, match="jpeg, webp, avif, jxl, opus"):
        evaluate(folder, against=["gif"])
    with pytest.raises(UsageError, match="none is named"):
        evaluate(folder, sweep=True)
    with pytest.raises(UsageError, match="opus is for audio, and there are no such files"):
        evaluate(folder, against=["opus"])
    with pytest.raises(UsageError, match="no model"):
        evaluate(folder, model="absent")
    monkeypatch.setattr(baselines.features, "check", lambda name: False)
    with pytest.raises(UsageError, match="no avif"):
        evaluate(folder, against=["avif"])
    assert codec == []


def test_summary_means_images_and_divides_totals():
    def row(codec="ours", same=None, **figures):
        return dict.fromkeys(image_rows.COLUMNS) | {"codec": codec, "same_bytes_as": same} | figures

    size = {"width": 1000, "height": 1000, "bytes": 10, "encode_seconds": 1.0, "decode_seconds": 0.5}
    tall = {"width": 1000, "height": 3000, "bytes": 20, "encode_seconds": 1.0, "decode_seconds": 3.5}
    rows = [
        row(q=1, bpp=1.0, psnr_db=30.0, ms_ssim=0.9, **size),
        row(q=1, bpp=3.0, psnr_db=32.0, ms_ssim=None, **tall),
        row("jpeg", "ours q1", q=7, bpp=1.5, psnr_db=28.0, matched=False, **size),
        row("jpeg", "ours q1", q=None, bpp=2.5, psnr_db=29.0, matched=True, **tall),
        row(q=2, bpp=5.0, psnr_db=40.0, **size),
    ]
    first, jpeg, second = evaluation.summary(rows)
    assert (first["files"], first["bpp"], first["psnr_db"], first["ms_ssim"]) == (2, 2, 31, 0.9)
    assert (first["encode_mps"], first["decode_mps"], first["bytes"]) == (2, 1, 30)
    assert (jpeg["same_bytes_as"], jpeg["unmatched"], jpeg["psnr_db"]) == ("ours q1", 1, 28.5)
    assert (second["q"], second["ms_ssim"], second["estimate_bpp"]) == (2, None, None)


def test_rows_are_written_as_csv_and_json(folder, codec, tmp_path):
    rows = evaluate(folder / "1.png", quality=3, against=["jpeg"])
    rows[0]["psnr_db"] = math.inf
    evaluation.write_csv(rows, tmp_path / "rows.csv")
    evaluation.write_json(rows, tmp_path / "rows.json")
    with open(tmp_path / "rows.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == image_rows.COLUMNS
    assert int(table[0]["bytes"]) == rows[0]["bytes"]
    assert float(table[0]["psnr_db"]) == math.inf
    assert table[0]["ms_ssim"] == ""
    loaded = json.loads((tmp_path / "rows.json").read_text())
    assert loaded[0]["psnr_db"] is None
    assert loaded[1] == rows[1]
    evaluation.write_csv(evaluation.summary(rows), tmp_path / "mean.csv")
    assert (tmp_path / "mean.csv").read_text().startswith("codec,q,same_bytes_as,files,")


def test_plot_is_an_image_of_all_codecs(folder, codec, tmp_path):
    pytest.importorskip("matplotlib")
    rows = evaluate(folder, against=["jpeg"])
    evaluation.plot(rows, tmp_path / "plot.png")
    with PillowImage.open(tmp_path / "plot.png") as drawn:
        assert drawn.width > 1000
    evaluation.plot(rows, tmp_path / "plot.svg")
    assert "</svg>" in (tmp_path / "plot.svg").read_text()
    small = [row | {"ssimulacra2": None} for row in rows if row["ms_ssim"] is None]
    evaluation.plot(small, tmp_path / "small.png")
    with PillowImage.open(tmp_path / "small.png") as drawn:
        assert drawn.width < 1000
    with pytest.raises(UsageError, match="cannot be written as xyz"):
        evaluation.plot(rows, tmp_path / "plot.xyz")


def test_plot_without_matplotlib_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"vqcodec\[plots\]"):
        evaluation.plot([], tmp_path / "plot.png")


@pytest.fixture
def weights_file(tmp_path):
    """A real model, as it is after the linear start: PCA and k-means, networks that add nothing yet."""
    small = {"encoder_width": 4, "encoder_hidden": 4, "encoder_blocks": 1}
    small |= {"decoder_width": 4, "decoder_hidden": 4, "decoder_blocks": 1}
    torch.manual_seed(0)
    model = build(Config(codes=32, code_dim=4, **small)).eval()
    crops = torch.stack([to_samples(photo(64, 64, seed=n)[None])[0] for n in range(8)])
    model.start(lambda number: crops, torch.Generator().manual_seed(0))
    card = Card("linear", model.medium, model.method, asdict(model.config), points=[{"quality": 3}])
    weights.save(model, card, tmp_path / "linear.safetensors")
    return tmp_path / "linear.safetensors"


def test_real_bitstreams_are_measured_as_they_are(folder, weights_file):
    rows = evaluate(folder, model=weights_file, against=["jpeg"], device="cpu")
    assert [(row["codec"], row["q"]) for row in rows] == [("linear", 3), ("jpeg", rows[1]["q"])] * 2
    for row in rows[::2]:
        data = pipeline.encode(row["file"], model=weights_file, device="cpu")
        decoded = pipeline.decode(data, model=weights_file, device="cpu")
        assert row["bytes"] == len(data)
        assert row["bpp"] == pipeline.info(data).bpp
        assert row["psnr_db"] == psnr(media.read_image(row["file"]).samples, decoded.samples)
        assert row["psnr_db"] > 15
        encoded = pipeline.encode_file(row["file"], pipeline.EncodeOptions(weights_file, device="cpu"))
        codes = encoded.symbols["codes"].size
        assert encoded.count == codes and encoded.raw_bits == 5 * codes
        assert row["bits_per_code"] == 8 * pipeline.info(data).code_bytes / codes
        assert row["saving"] == pytest.approx(1 - row["bits_per_code"] / 5)
        assert row["gap"] == pytest.approx(row["bits_per_code"] * codes / encoded.estimate_bits - 1)


def test_points_that_a_model_has_not_are_told(folder, weights_file):
    with pytest.warns(VqcodecWarning, match="one quality, 3, which is used"):
        evaluate(folder, model=weights_file, quality=5, device="cpu")
    with pytest.raises(UsageError, match=r"no quality 5\.5"):
        evaluate(folder, model=weights_file, quality=5.5, device="cpu")


def test_columns_stand_in_the_order_of_their_medium(tmp_path):
    row = dict.fromkeys(reversed(image_rows.COLUMNS))
    evaluation.write_csv([row], tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text().splitlines()[0] == ",".join(image_rows.COLUMNS)


def test_folders_and_pipes_inside_a_folder_are_no_files(tmp_path):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    PillowImage.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert disk.files(tmp_path) == [tmp_path / "a.png"]
    with pytest.raises(MediaError, match="pipe"):
        disk.files(tmp_path / "pipe.png")


@pytest.mark.parametrize("order", [tables.COLUMNS, tables.MEANS])
def test_columns_have_their_order_whatever_that_of_the_rows(order: tuple[str, ...], tmp_path: Path) -> None:
    evaluation.write_csv([dict.fromkeys(reversed(order), 1.0)], tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text().splitlines()[0] == ",".join(order)
