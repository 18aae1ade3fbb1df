"""Building blocks of the networks of all models, over one axis (audio) or two (images)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
"""Number of axes -> class of convolution."""


class ResidualBlock(nn.Module):
    """x + 1x1(ReLU(3x3(ReLU(x)))), the residual block of van den Oord et al. 2017, section 4.1.

    Shapes: [B, C, H, W], or with `axes=1` [B, C, T] -> the same. The spatial convolution reaches `dilation`
    to each side.
    """

    def __init__(self, channels: int, hidden: int, *, axes: int = 2, dilation: int = 1) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[axes]
        self.spatial = convolution(channels, hidden, 3, padding=dilation, dilation=dilation)
        self.pointwise = convolution(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's correction to x."""
        residual: Tensor = self.pointwise(torch.relu(self.spatial(torch.relu(x))))
        return x + residual


def residual_stack(channels: int, hidden: int, depth: int) -> nn.Sequential:
    """Build `depth` residual blocks in a row, [B, C, H, W] -> the same; receptive field 2 * depth + 1."""
    return nn.Sequential(*(ResidualBlock(channels, hidden) for _ in range(depth)))


class ConvNeXtBlock(nn.Module):
    """x + scale * pointwise(GELU(pointwise(LayerNorm(depthwise(x))))), in one axis (Siuzdak 2023, "Vocos").

    Shapes: [B, C, T] -> the same. The depthwise convolution reaches `kernel // 2` to each side.
    """

    def __init__(self, channels: int, hidden: int, *, kernel: int = 7, scale: float = 0.1) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's correction to x."""
        hidden = F.gelu(self.expand(self.norm(self.depthwise(x).transpose(1, 2))))
        correction: Tensor = (self.scale * self.contract(hidden)).transpose(1, 2)
        return x + correction


class InverseSTFT(nn.Module):
    """The last layer of a vocoder: magnitudes and phases per frame, and their inverse STFT (Siuzdak 2023).

    Frame t is windowed (Hann) and centred on samples hop * t .. hop * (t + 1); frames are cut off before the
    first sample and after the last. A frame overlaps with `reach` frames to each side.

    Shapes: [B, C, T] -> [B, 1, hop * T].
    """

    window: Tensor

    def __init__(self, channels: int, size: int, hop: int) -> None:
        super().__init__()
        if size % (2 * hop):
            raise ValueError(f"a window of {size} samples for a hop of {hop}")
        self.size, self.hop = size, hop
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, size + 2)
        # Squared Hann windows sum to this constant: no division by an envelope is needed.
        window = torch.hann_window(size) / (0.375 * size / hop)
        self.register_buffer("window", window, persistent=False)

    @property
    def reach(self) -> int:
        """Number of frames to each side with which a frame overlaps."""
        return -(-(self.size - self.hop) // (2 * self.hop))

    def forward(self, x: Tensor) -> Tensor:
        """Map frames of features to samples."""
        logarithm, angle = self.project(self.norm(x.transpose(1, 2))).float().chunk(2, dim=-1)
        # Bounded, so that a poor start cannot overflow: a full-scale sine has a magnitude of size / 4.
        magnitude = logarithm.clamp(max=math.log(self.size)).exp()
        # The first and the last bin of a real signal are real. cuFFT does not ignore an imaginary part there,
        # as libraries for CPUs do and as the gradient takes for granted.
        imaginary = F.pad((magnitude * angle.sin())[..., 1:-1], (1, 1))
        spectrum = torch.complex(magnitude * angle.cos(), imaginary)
        frames = torch.fft.irfft(spectrum, self.size) * self.window
        batch, count, _ = frames.shape
        parts = frames.view(batch, count, self.size // self.hop, self.hop)
        overlap = parts.shape[2] - 1
        summed = sum(F.pad(parts[:, :, k], (0, 0, k, overlap - k)) for k in range(overlap + 1))
        cut = (self.size - self.hop) // 2
        return summed.reshape(batch, 1, -1)[:, :, cut : cut + count * self.hop]  # type: ignore[union-attr]


def start_at_zero(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Zero the weights and bias of a last layer, so that its network starts without a correction."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class GatedStack(nn.Module):
    """Causal dilated convolutions of kernel 2 with gates (van den Oord et al. 2016, "WaveNet", eq. 5).

    Layer l of a stack of L has dilation 2^l: z = tanh(a) * sigmoid(b), where [a, b] is a linear map of the
    sample, the sample 2^l before it and the context; x + a linear map of z is the input of the next layer,
    another linear map of z is added to the output.

    Shapes: x [B, T, R] and context [B, T / hop, C] -> [B, T, S]. A sample depends on `reach` samples before.
    """

    def __init__(self, residual: int, skip: int, context: int, *, layers: int, stacks: int) -> None:
        super().__init__()
        self.residual, self.skip = residual, skip
        self.dilations = [2**layer for layer in range(layers)] * stacks
        self.dilated = nn.ModuleList(nn.Linear(2 * residual, 2 * residual) for _ in self.dilations)
        self.context = nn.ModuleList(nn.Linear(context, 2 * residual, bias=False) for _ in self.dilations)
        self.output = nn.ModuleList(nn.Linear(residual, residual + skip) for _ in self.dilations)

    @property
    def reach(self) -> int:
        """Number of samples before it on which a sample depends."""
        return sum(self.dilations)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Compute the outputs of all samples at once, as in training."""
        batch, count, _ = x.shape
        hop = count // context.shape[1]
        total = x.new_zeros(batch, count, self.skip)
        parts = zip(self.dilations, self.dilated, self.context, self.output, strict=True)
        for dilation, dilated, condition, output in parts:
            before = F.pad(x, (0, 0, dilation, 0))[:, :count]
            mixed = dilated(torch.cat((before, x), 2)).view(batch, -1, hop, 2 * self.residual)
            signal, gate = (mixed + condition(context)[:, :, None]).view(batch, count, -1).chunk(2, 2)
            residual, skipped = output(signal.tanh() * gate.sigmoid()).split((self.residual, self.skip), 2)
            x, total = x + residual, total + skipped
        return total
