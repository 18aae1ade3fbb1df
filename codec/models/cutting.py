"""Crops cut into parts for the context model, so that it learns what is unknown next to a region's border.

An image is coded in regions, and the context of a latent ends at the border of its region. A training crop is
small and lies within one region: where its context ends, the image ends too, and a context model trained on
whole crops expects the same at a border where the image goes on. So training cuts many crops in two, along
rows and along columns: the transform has the whole crop, the context model one part at a time. Gradients at
the ends of crops have a smaller weight, since images are larger than crops and end at fewer positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

CUT_SHARE = 0.75
"""Share of the crops whose rows are cut in two, and of those whose columns are."""

END_WEIGHT = 0.5
"""Weight of the gradients at the first and last rows and columns of a crop, against 1 elsewhere."""


def random_parts(count: int, height: int, width: int, device: torch.device) -> Tensor:
    """Draw the parts of a batch of grids, numbered 0 to 3: int64 [count, height, width].

    Cuts are at even positions, so that the phases of a part are those of a region that begins there.
    """

    def second(length: int) -> Tensor:
        """Return which rows, or columns, belong to the second part: bool [count, length]."""
        choices = (length - 1) // 2
        chance, choice = torch.rand(2, count, 1, device=device)
        first = 2 + 2 * torch.floor(choice * choices)
        found: Tensor = (torch.arange(length, device=device) >= first) & (chance < CUT_SHARE)
        return found

    return second(height)[:, :, None] + 2 * second(width)[:, None].long()


def at_ends(grids: tuple[int, int, int], parts: Tensor | None, device: torch.device) -> Tensor:
    """Return which positions are in the first or last row or column of their part: bool [B, h, w].

    Args:
        grids: B, h, w.
        parts: as `random_parts` draws them; None: each grid is one part.
        device: of the result.
    """
    numbers = torch.zeros(grids, device=device) if parts is None else parts.float()
    around = F.pad(numbers[:, None], (1, 1, 1, 1), value=-1)
    neighbours = (
        around[:, 0, :-2, 1:-1],
        around[:, 0, 2:, 1:-1],
        around[:, 0, 1:-1, :-2],
        around[:, 0, 1:-1, 2:],
    )
    return torch.stack([numbers != neighbour for neighbour in neighbours]).any(0)


def less_at_ends(params: Tensor, positions: Tensor, grids: tuple[int, int, int]) -> Tensor:
    """Multiply gradients at the first and last rows and columns of a crop by END_WEIGHT.

    Args:
        params: outputs of the context model, [N, 2 n]; their values stay.
        positions: the rows of the maps that they belong to, [N].
        grids: B, h, w.
    """
    weights = params.new_full(grids, END_WEIGHT)
    weights[:, 1:-1, 1:-1] = 1
    constant = params.detach()
    return constant + weights.view(-1, 1)[positions] * (params - constant)
