"""Files of several levels of codes, decoded to their first ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_fakes import invoke
from vqcodec import media, pipeline
from vqcodec.errors import ModelError


def photo() -> media.Image:
    """Draw waves, colour gradients and a disc, uint8 [72, 104, 3]."""
    y, x = np.mgrid[:72, :104]
    waves = 90 + 60 * np.sin(x / 7) * np.cos(y / 11)
    disc = 70 * ((x - 60) ** 2 + (y - 30) ** 2 < 400)
    return media.Image(np.stack([waves + disc, 60 + x + disc, 200 - y], 2).astype(np.uint8))


def test_the_first_level_of_a_file_is_the_file_of_the_first_level() -> None:
    both, top = (pipeline.encode(photo(), model="vqvae2-image", quality=q) for q in (3, 1))
    assert len(top) < len(both)
    first = pipeline.decode_image(both, levels=1).samples
    assert np.array_equal(first, pipeline.decode_image(top).samples)
    assert np.array_equal(pipeline.decode_image(both, levels=2).samples, pipeline.decode_image(both).samples)
    assert not np.array_equal(first, pipeline.decode_image(both).samples)


@pytest.mark.parametrize(("model", "levels"), [("vqvae2-image", 3), ("vqvae-image", 2), ("vae-image", 2)])
def test_levels_that_a_file_does_not_have(model: str, levels: int) -> None:
    data = pipeline.encode(photo(), model=model)
    with pytest.raises(ModelError, match=f"levels is {levels}, and the file of {model} has"):
        pipeline.decode(data, levels=levels)
    with pytest.raises(ModelError, match=r"levels is 1\.0"):
        pipeline.decode(data, levels=1.0)  # type: ignore[arg-type]


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.vqc").write_bytes(pipeline.encode(photo(), model="vqvae2-image"))
    assert invoke("decode", tmp_path / "a.vqc", "--levels", "1", "-o", tmp_path / "a.png").exit_code == 0
    expected = pipeline.decode_image(tmp_path / "a.vqc", levels=1).samples
    assert np.array_equal(media.read_image(tmp_path / "a.png").samples, expected)
    # A file that has fewer levels fails alone.
    (tmp_path / "b.vqc").write_bytes(pipeline.encode(photo(), model="vae-image"))
    result = invoke("decode", tmp_path / "b.vqc", tmp_path / "a.vqc", "--levels", "2", "-o", f"{tmp_path}/o/")
    assert result.exit_code == 1 and "b.vqc: levels is 2" in result.stderr
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["a.decoded.png"]
