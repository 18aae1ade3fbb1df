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
    """The golden image, or the golden audio, two chunks long, encoded with the nearest symbols.

    Where pixels are the same on every machine, the file has their CRC.
    """
    original: media.Image | media.Audio = media.Image(draw(*SIZE, 7))
    loaded = weights.load(model, "cpu")
    if loaded.medium == "audio":
        original = media.Audio.of(sing(SECONDS, seed=7), 16_000)
    pixel_crc = bool(loaded.in_file_as_integers)
    options = pipeline.EncodeOptions(model=model, effort=0, device="cpu", pixel_crc=pixel_crc)
    return pipeline.encode_file(original, options)


if __name__ == "__main__":
    (GOLDEN / f"{sys.argv[1]}.vqc").write_bytes(golden_bytes(sys.argv[1]).data)
