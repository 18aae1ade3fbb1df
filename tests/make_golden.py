"""Write tests/golden/MODEL.vqc: a small picture by a shipped model, a promise to later releases.

python tests/make_golden.py MODEL

Run it once for a new model, or after a change that CHANGELOG.md lists under "Bitstream".
"""

import sys
from pathlib import Path

from conftest import draw
from vqcodec import media, pipeline, weights

GOLDEN = Path(__file__).parent / "golden"
SIZE = (150, 130)


def golden_bytes(model: str) -> pipeline.Encoded:
    """The golden picture, encoded with the nearest codes."""
    return pipeline.encode_image(media.Image(draw(*SIZE, 7)), weights.load(model, "cpu"), effort=0)


if __name__ == "__main__":
    (GOLDEN / f"{sys.argv[1]}.vqc").write_bytes(golden_bytes(sys.argv[1]).data)
