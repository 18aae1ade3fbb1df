"""Write tests/golden/MODEL.vqc: a small image or audio by a shipped model, a promise to later releases.

python tests/make_golden.py MODEL

Run it once for a new model, or after a change that CHANGELOG.md lists under "Bitstream".
"""

import sys
from pathlib import Path

from conftest import draw, sing
from vqcodec import media, pipeline, weights

GOLDEN = Path(__file__).parent / "golden"
SIZE = (150, 130)
SECONDS = 8.5


def golden_bytes(model: str) -> pipeline.Encoded:
    """The golden image, or the golden audio, two chunks long, encoded with the nearest symbols."""
    original: media.Image | media.Audio = media.Image(draw(*SIZE, 7))
    if weights.load(model, "cpu").medium == "audio":
        original = media.Audio.of(sing(SECONDS, seed=7), 16_000)
    return pipeline.encode_file(original, pipeline.EncodeOptions(model=model, effort=0, device="cpu"))


if __name__ == "__main__":
    (GOLDEN / f"{sys.argv[1]}.vqc").write_bytes(golden_bytes(sys.argv[1]).data)
