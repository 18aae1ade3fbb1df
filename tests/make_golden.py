"""Write tests/golden/MODEL.vqc: a small image or audio by a shipped model, a promise to later releases.

python tests/make_golden.py MODEL
python tests/make_golden.py lossless     a photograph without loss, by the default model

Run it once for a new model, or after a change that CHANGELOG.md lists under "Bitstream".
"""

import sys
from pathlib import Path

import numpy as np
from conftest import draw, sing
from vqcodec import media, pipeline, weights

GOLDEN = Path(__file__).parent / "golden"
SIZE = (150, 130)
SECONDS = 8.5
LOSSLESS = "lossless"


def grainy(width: int, height: int, seed: int = 7) -> np.ndarray:
    """Texture of all sizes, alike in all colours, uint8 [H, W, 3]: a photograph to a lossless coder."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128.0)
    for side in (1, 2, 4, 8, 16, 32):
        grid = 3 * side**0.8 * rng.normal(0, 1, (height // side + 2, width // side + 2, 4))
        grid = 0.25 * grid[:, :, :3] + grid[:, :, 3:]
        for size, axis in ((height, 0), (width, 1)):
            at, rest = np.divmod(np.arange(size), side)
            share = (rest / side).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            grid = grid.take(at, axis) * (1 - share) + grid.take(at + 1, axis) * share
        picture += grid
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def golden_bytes(model: str) -> pipeline.Encoded:
    """The golden image, or the golden audio, two chunks long, encoded with the nearest symbols.

    Where pixels are the same on every machine, the file has their CRC.
    """
    original: media.Image | media.Audio = media.Image(draw(*SIZE, 7))
    if LOSSLESS in model:
        original = media.Image(grainy(*SIZE))
    if model == LOSSLESS:
        return pipeline.encode_file(original, pipeline.EncodeOptions(lossless=True, device="cpu"))
    loaded = weights.load(model, "cpu")
    if loaded.medium == "audio":
        original = media.Audio.of(sing(SECONDS, seed=7), 16_000)
    pixel_crc = bool(loaded.card.config.get("integer_synthesis"))
    options = pipeline.EncodeOptions(model=model, effort=0, device="cpu", pixel_crc=pixel_crc)
    return pipeline.encode_file(original, options)


if __name__ == "__main__":
    (GOLDEN / f"{sys.argv[1]}.vqc").write_bytes(golden_bytes(sys.argv[1]).data)
