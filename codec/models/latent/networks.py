"""Encoders and decoders of models with one latent vector per picture, and decoders of three strengths.

Factorised: pixels are independent given z. PixelCNN (van den Oord et al. 2016): a pixel depends on z and on
all pixels before it, row by row. Local: on z and four neighbours alone, so that z has to tell the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

Kind = Literal["linear", "mlp", "conv", "broadcast"]
Strength = Literal["factorised", "local", "pixelcnn"]

CORNER = 3.0
"""Coordinates of the corners of a picture, as large as latents."""

DILATIONS = 3
"""Of the blocks of a PixelCNN: 1, 2, 4, and again from 1."""


def encoder(kind: Kind, side: int, channels: int, hidden: int, outputs: int) -> nn.Sequential:
    """Build a network from pictures, [B, C, S, S], to parameters of q(z | x), [B, outputs].

    Args:
        kind: "linear"; "mlp", two hidden layers of tanh; "conv", two convolutions of stride 2, two layers;
            "broadcast", as "mlp", for a decoder that knows places.
        side: S, for "conv" a multiple of 4.
        channels: C.
        hidden: width of the hidden layers; convolutions have an eighth and a quarter of it.
        outputs: size of the output.
    """
    inputs = channels * side**2
    if kind == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))
    if kind in ("mlp", "broadcast"):
        return nn.Sequential(nn.Flatten(), *_layers(inputs, hidden, hidden, outputs))
    narrow, wide = max(hidden // 8, 1), max(hidden // 4, 1)
    return _network(
        nn.Conv2d(channels, narrow, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(narrow, wide, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(wide * (side // 4) ** 2, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )


def decoder(kind: Kind, side: int, channels: int, hidden: int, units: int) -> nn.Sequential:
    """Build a network from latents, [B, units], to maps, [B, C, S, S]: `encoder` in reverse.

    "broadcast" is a spatial broadcast decoder: four layers of 1x1 kernels, a quarter of `hidden` wide, the
    first of them `Broadcast`.

    Convolutions follow an enlargement, since transposed ones leave a checkerboard (Odena et al. 2016).
    """
    outputs = channels * side**2
    shape = nn.Unflatten(1, (channels, side, side))
    if kind == "linear":
        return nn.Sequential(nn.Linear(units, outputs), shape)
    if kind == "mlp":
        return nn.Sequential(*_layers(units, hidden, hidden, outputs), shape)
    narrow, wide = max(hidden // 8, 1), max(hidden // 4, 1)
    if kind == "broadcast":
        return started(
            Broadcast(side, wide, units),
            nn.ReLU(),
            nn.Linear(wide, wide),
            nn.ReLU(),
            nn.Linear(wide, wide),
            nn.ReLU(),
            nn.Linear(wide, channels),
            StepsToRows(channels, side),
        )
    return started(
        nn.Linear(units, hidden),
        nn.ReLU(),
        nn.Linear(hidden, wide * (side // 4) ** 2),
        nn.ReLU(),
        nn.Unflatten(1, (wide, side // 4, side // 4)),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(wide, narrow, 3, padding=1),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(narrow, channels, 3, padding=1),
    )


def _layers(*sizes: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return layers[:-1]


def started(*layers: nn.Module) -> nn.Sequential:
    """Return a network whose signals keep their variance through ReLU at first (He et al. 2015)."""
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.get_parameter("bias"))
    return _network(*layers)


def _network(*layers: nn.Module) -> nn.Sequential:
    """Return a network with channels last, in which convolutions are nearly twice as fast on a CPU."""
    network = nn.Sequential(*layers)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


class Broadcast(nn.Module):
    """First layer of a spatial broadcast decoder (Watters et al. 2019): of latents and coordinates of places.

    Places are inputs, and need not be made of latents: units learn to tell one direction each.

    Shapes: [B, units] -> [B, S S, width].
    """

    places: Tensor

    def __init__(self, side: int, width: int, units: int) -> None:
        super().__init__()
        axis = torch.linspace(-CORNER, CORNER, side)
        self.register_buffer("places", torch.cartesian_prod(axis, axis), persistent=False)
        self.latents, self.coordinates = nn.Linear(units, width), nn.Linear(2, width, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """Add both."""
        features: Tensor = self.latents(z)[:, None] + self.coordinates(self.places)
        return features


class MaskedConv2d(nn.Conv2d):
    """Convolution that sees the pixels before its own, row by row; with mask "B" also its own.

    The kernel has the rows above and its own alone, of which the rest is masked.
    """

    mask: Tensor

    def __init__(
        self, mask: Literal["A", "B"], inputs: int, outputs: int, kernel: int, dilation: int = 1
    ) -> None:
        half = kernel // 2
        super().__init__(inputs, outputs, (half + 1, kernel), padding=(0, half * dilation), dilation=dilation)
        self.above = half * dilation
        keep = torch.ones(half + 1, kernel)
        keep[half, half + (mask == "B") :] = 0
        self.register_buffer("mask", keep, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the masked kernel."""
        padded = F.pad(x, (0, 0, self.above, 0))
        convolved: Tensor = self._conv_forward(padded, self.weight * self.mask, self.bias)
        return convolved


class AutoregressiveDecoder(nn.Module):
    """p(x | z) pixel by pixel: maps of z and the pixels before -> one parameter per pixel and channel.

    Dilations of 1, 2, 4, and so on in turn let a pixel of a PixelCNN see most of a small picture.

    Shapes: x [B, C, S, S] in 0..1, context [B, K, S, S] -> [B, C, S, S].

    Attributes:
        dropout: share of the pixels that are hidden in training, [].
    """

    dropout: Tensor

    def __init__(self, strength: Strength, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.register_buffer("dropout", torch.zeros(()))
        strong = strength == "pixelcnn"
        self.first = MaskedConv2d("A", channels, width, 7 if strong else 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), MaskedConv2d("B", width, width, 3 if strong else 1, 1 << number % DILATIONS)
            )
            for number in range(blocks)
        )
        self.last = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, channels, 1)
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Compute the parameters of all pixels at once, as in training."""
        inputs = (2 * x - 1).contiguous(memory_format=torch.channels_last)  # nearly twice as fast on a CPU
        if self.training:
            inputs = inputs * (torch.rand_like(inputs[:, :1]) >= self.dropout)
        features = self.first(inputs) + context
        for block in self.blocks:
            features = features + block(features)
        parameters: Tensor = self.last(features)
        return parameters

    def draw(self, context: Tensor, channels: int, pixel: Callable[[Tensor], Tensor]) -> Tensor:
        """Draw pictures, [B, C, S, S], pixel by pixel.

        Args:
            context: maps of z, [B, K, S, S].
            channels: C.
            pixel: draws a pixel from its parameters, [B, C].
        """
        batch, _, height, width = context.shape
        x = context.new_zeros(batch, channels, height, width)
        for row in range(height):
            for column in range(width):
                seen = x[:, :, : row + 1], context[:, :, : row + 1]
                x[:, :, row, column] = pixel(self(*seen)[:, :, row, column])
        return x


class Recurrent(nn.Module):
    """A GRU over a sequence, [B, n, inputs] -> [B, n, outputs], forwards in time or backwards."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, backwards: bool) -> None:
        super().__init__()
        self.backwards = backwards
        self.gru = nn.GRU(inputs, hidden, batch_first=True)
        self.last = nn.Linear(hidden, outputs)
        # With the usual weights latents would tell hardly anything at first, and a PixelCNN never ask them.
        for weight in (self.gru.get_parameter("weight_ih_l0"), self.last.weight):
            nn.init.kaiming_normal_(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the outputs of all steps."""
        states, _ = self.gru(x.flip(1) if self.backwards else x)
        outputs: Tensor = self.last(states.flip(1) if self.backwards else states)
        return outputs


class SplitHalves(nn.Module):
    """Gather the first halves of the features of all steps, then the second: [B, n, 2 d] -> [B, 2 n d]."""

    def forward(self, x: Tensor) -> Tensor:
        """Rearrange the features."""
        return torch.cat([half.flatten(1) for half in x.chunk(2, 2)], 1)


class RowsToSteps(nn.Module):
    """Groups of rows as the steps of a sequence: [B, C, S, S] -> [B, n, C S S / n]."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Rearrange pixels."""
        batch, channels, side, _ = x.shape
        return x.reshape(batch, channels, self.steps, -1).transpose(1, 2).reshape(batch, self.steps, -1)


class StepsToRows(nn.Module):
    """The steps of a sequence as groups of rows: [B, n, C S S / n] -> [B, C, S, S]."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.shape = channels, side, side

    def forward(self, x: Tensor) -> Tensor:
        """Rearrange pixels."""
        batch, steps, _ = x.shape
        return x.reshape(batch, steps, self.shape[0], -1).transpose(1, 2).reshape(batch, *self.shape)


def anticausal_encoder(side: int, channels: int, steps: int, hidden: int, outputs: int) -> nn.Sequential:
    """Build an encoder over groups of rows whose outputs at a step see its rows and those below.

    Shapes: [B, C, S, S] -> [B, outputs]: the first half of the outputs of all steps, then the second.
    """
    inputs = channels * side * side // steps
    return nn.Sequential(
        RowsToSteps(steps), Recurrent(inputs, hidden, outputs // steps, backwards=True), SplitHalves()
    )


def causal_decoder(side: int, channels: int, steps: int, hidden: int, units: int) -> nn.Sequential:
    """Build a decoder of a sequence of latents whose rows depend on the latents of their step and before.

    Shapes: [B, units] -> [B, C, S, S].
    """
    outputs = channels * side * side // steps
    return nn.Sequential(
        nn.Unflatten(1, (steps, units // steps)),
        Recurrent(units // steps, hidden, outputs, backwards=False),
        StepsToRows(channels, side),
    )
