"""A model of a third kind goes the whole road without a change elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vqcodec
from conftest import draw
from third_model import Config, TwoPlanes
from vqcodec import models, pipeline, training, weights
from vqcodec.bitstream import container
from vqcodec.models import Entry
from vqcodec.pipeline import EncodeOptions
from vqcodec.priors.settings import TrainConfig


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line that adds a model."""
    entry = Entry(Config(), TwoPlanes, TrainConfig(steps=20, batch=4, crop=64, learning_rate=1e-2))
    monkeypatch.setitem(models.MODELS, "two-planes", entry)


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> training.Run:
    """20 steps, of which the last 10 are resumed."""
    folder = tmp_path_factory.mktemp("third") / "two"
    with pytest.MonkeyPatch.context() as patch:
        entry = Entry(Config(), TwoPlanes, TrainConfig(steps=10, batch=4, crop=64, learning_rate=1e-2))
        patch.setitem(models.MODELS, "two-planes", entry)
        training.train([photos], model="two-planes", output=folder, checkpoint_every=5)
        return training.train(resume=folder, steps=20)


def test_it_is_short() -> None:
    """What a new model takes: its class, its operating point, its prior."""
    lines = Path(__file__).with_name("third_model.py").read_text().splitlines()
    assert len(lines) - lines.index("@dataclass(frozen=True)") <= 80


def test_it_trains_and_resumes(run: training.Run) -> None:
    card = weights.read_card(run.best)
    assert card.training["steps"] == 20 and card.method == "two planes"
    first = TwoPlanes(Config()).levels
    assert not np.allclose(weights.load(run.best).levels, first.detach()), "the levels moved"
    assert card.measured["validation"]["psnr_db"] > 12


@pytest.mark.parametrize("size", [(96, 80), (97, 83), (1, 1), (600, 530)])
def test_it_encodes_and_decodes(run: training.Run, size: tuple[int, int]) -> None:
    image = draw(*size, 5)
    encoded = pipeline.encode_file(image, EncodeOptions(model=run.best))
    pipeline.verify(encoded)
    assert encoded.symbols["top"].shape == tuple(-(-side // 8) for side in image.shape[:2])
    assert encoded.symbols["bottom"].shape == tuple(-(-side // 4) for side in image.shape[:2])
    decoded = vqcodec.decode(encoded.data, model=run.best)
    assert decoded.samples.shape == image.shape
    if min(size) > 60:
        assert set(container.read_info(encoded.data).priors) == {container.LEARNED}
        raw = encoded.raw_bits / 8
        assert len(encoded.data) < raw, "the second plane is cheaper, given the first"
        grey = image.mean(2)
        assert np.square(decoded.samples.mean(2) - grey).mean() < 0.2 * grey.var()


def test_a_target_is_met_or_refused(run: training.Run) -> None:
    image = draw(300, 200, 5)
    size = len(vqcodec.encode(image, model=run.best))
    assert len(vqcodec.encode(image, model=run.best, target_size=size)) == size
    with pytest.raises(vqcodec.VqcodecError, match=f"smallest is {size:,} bytes"):
        vqcodec.encode(image, model=run.best, target_size=size - 1)


def test_damage_is_confined(run: training.Run) -> None:
    image = draw(600, 530, 5)
    data = bytearray(vqcodec.encode(image, model=run.best))
    whole = vqcodec.decode(bytes(data), model=run.best).samples
    data[-1] ^= 1  # the last of four chunks: 88 x 18 pixels
    with pytest.warns(vqcodec.VqcodecWarning, match="chunk 4 of 4"):
        found = vqcodec.decode(bytes(data), model=run.best, salvage=True).samples
    assert np.array_equal(found[:512], whole[:512]) and np.array_equal(found[:, :512], whole[:, :512])
    lost = found[512:, 512:].astype(int)
    assert np.ptp(lost) == 0 and abs(lost[0, 0, 0] - 127) < 20, "grey"


def test_it_samples(run: training.Run, tmp_path: Path) -> None:
    first, second = vqcodec.sample(run.best, count=2, size=(40, 24), seed=3)
    assert first.samples.shape == (24, 40, 3) and not np.array_equal(first.samples, second.samples)
    assert np.array_equal(vqcodec.sample(run.best, size=(40, 24), seed=3)[0].samples, first.samples)
    image = draw(96, 80, 1)
    data = vqcodec.encode(image, model=run.best)
    (rest,) = vqcodec.sample(run.best, continued=data, fraction=0.5)
    decoded = vqcodec.decode(data, model=run.best).samples
    assert np.array_equal(rest.samples[:40], decoded[:40])
    assert not np.array_equal(rest.samples[40:], decoded[40:])


def test_it_is_evaluated(run: training.Run, photos: Path) -> None:
    rows = vqcodec.evaluate(sorted(photos.glob("*.png"))[:2], model=run.best)
    assert [row["codec"] for row in rows] == ["two"] * 2
    assert all(row["psnr_db"] > 12 and 0 < row["saving"] < 1 for row in rows)
