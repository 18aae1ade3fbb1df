from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from vqcodec.transform import tiling


@given(st.integers(1, 300), st.integers(1, 3000), st.integers(0, 12), st.integers(1, 5000))
@settings(max_examples=100, deadline=None)
def test_blocks_cover_the_grid_once_inside_their_halo(height: int, width: int, halo: int, area: int) -> None:
    seen = np.zeros((height, width), np.uint8)
    grid = np.arange(height * width).reshape(height, width)
    for block in tiling.blocks(height, width, halo, area):
        seen[block.inner] += 1
        assert np.array_equal(grid[block.outer][block.within], grid[block.inner])
        assert grid[block.inner].size <= max(area, 2 * math.isqrt(area))
    assert (seen == 1).all()


def test_padding_repeats_the_edge() -> None:
    pixels = np.arange(5 * 3 * 1, dtype=np.uint8).reshape(5, 3, 1)
    padded = tiling.pad_to_multiple(pixels, 4)
    assert padded.shape == (8, 4, 1)
    assert (padded[5:, :3] == pixels[4]).all() and (padded[:5, 3] == pixels[:, 2]).all()
    assert tiling.pad_to_multiple(pixels[:4, :2], 2).shape == (4, 2, 1)
    assert np.array_equal(tiling.extend(pixels, 8, 4), padded)
    assert tiling.extend(pixels, 2, 9).shape == (5, 9, 1), "what is large enough stays as it is"
    assert tiling.extend(pixels, 5, 3) is pixels
