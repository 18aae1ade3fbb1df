"""Write tests/golden/MODEL.vqc: a small picture or sound by a shipped model, a promise to later releases.

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
    """The golden picture, encoded with the nearest codes, or the golden sound, two chunks long."""
    codec = weights.load(model, "cpu")
    if codec.medium == "audio":
        return pipeline.encode_audio(media.Audio.of(sing(SECONDS, seed=7), 16_000), codec)
    return pipeline.encode_file(
        media.Image(draw(*SIZE, 7)), pipeline.EncodeOptions(model=model, effort=0, device="cpu")
    )


if __name__ == "__main__":
    (GOLDEN / f"{sys.argv[1]}.vqc").write_bytes(golden_bytes(sys.argv[1]).data)
