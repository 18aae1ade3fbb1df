"""The demonstration of `make demo`: one photograph through the codec, beside JPEG at the same bytes.

python docs/demo.py [PHOTO] [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import PIL.Image
from vqcodec import competitors, media, pipeline
from vqcodec.metrics import psnr


def main() -> None:
    """Encode, decode, print the table and write the side-by-side picture."""
    photo = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "parrots.jpg"
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("demo")
    folder.mkdir(parents=True, exist_ok=True)

    original = media.read_image(photo)
    encoded = pipeline.encode_file(photo)
    bitstream = folder / f"{photo.stem}.vqc"
    bitstream.write_bytes(encoded.data)
    decoded = pipeline.decode(bitstream)
    decoded.save(folder / f"{photo.stem}.decoded.png")

    rows = [("raw RGB", original.samples.nbytes, None), (photo.name, photo.stat().st_size, None)]
    rows.append((encoded.model, len(encoded.data), psnr(original.samples, decoded.samples)))
    for name in competitors.COMPETITORS:
        other = competitors.Ladder(original, name).at(len(encoded.data))
        rows.append((f"{name} at the same bytes", other["bytes"], other["psnr_db"]))

    pixels = original.width * original.height
    print(f"\n{photo.name}: {original.width} x {original.height} pixels\n")
    print(f"{'':28}{'bytes':>10}{'ratio':>9}{'bpp':>8}{'PSNR, dB':>10}")
    for name, size, quality in rows:
        ratio, rate = original.samples.nbytes / size, 8 * size / pixels
        figure = "" if quality is None else f"{quality:.2f}"
        print(f"{name:28}{size:>10,.0f}{ratio:>8.1f}x{rate:>8.3f}{figure:>10}")

    pair = np.concatenate((original.samples, decoded.samples), axis=1)
    PIL.Image.fromarray(pair).save(folder / "side-by-side.png")
    print(f"\n{bitstream}\n{folder}/{photo.stem}.decoded.png")
    print(f"{folder}/side-by-side.png   original left, reconstruction right")


if __name__ == "__main__":
    main()
