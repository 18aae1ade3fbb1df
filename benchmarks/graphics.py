"""Bytes of text, graphics, flat and tiny images, drawn by this script, vs. PNG and lossless WebP.

python benchmarks/graphics.py [--model M] [--quality 3 5] [-o FOLDER]
"""

import argparse
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from vqcodec import media, pipeline
from vqcodec.metrics.image import psnr

WORDS = "the codes of a picture are numbers that a prior expects and a coder writes down one after the other"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="name or file; the default model if absent")
    parser.add_argument("--quality", type=float, nargs="+", default=[3, 5])
    parser.add_argument("-o", "--output", type=Path, help="save originals and reconstructions here")
    options = parser.parse_args()
    heads = [f"q {quality:g}{unit}" for quality in options.quality for unit in ("", ", dB")]
    print("| | samples | " + " | ".join(heads) + " | PNG | WebP lossless |")
    print("|---|" + "---:|" * (3 + len(heads)))
    for name, image in drawings().items():
        original = media.read_image(np.asarray(image))
        cells = [f"{original.samples.nbytes:,}"]
        for quality in options.quality:
            data = pipeline.encode(original, model=options.model, quality=quality)
            decoded = pipeline.decode(data, model=options.model)
            reached = psnr(original.samples, decoded.samples)
            cells += [f"{len(data):,}", "exact" if math.isinf(reached) else f"{reached:.1f}"]
            if options.output:
                options.output.mkdir(parents=True, exist_ok=True)
                decoded.save(options.output / f"{name}.q{quality:g}.png")
        if options.output:
            image.save(options.output / f"{name}.png")
        for format, settings in (("PNG", {"optimize": True}), ("WEBP", {"lossless": True, "method": 6})):
            file = io.BytesIO()
            image.save(file, format, **settings)
            cells.append(f"{len(file.getvalue()):,}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def drawings() -> dict[str, Image.Image]:
    """Draw the images, by name."""
    page = Image.new("RGB", (640, 800), "white")
    pen = ImageDraw.Draw(page)
    words, line, top = WORDS.split(), "", 30
    for number in range(400):
        line += words[number * 7 % len(words)] + " "
        if pen.textlength(line, font=ImageFont.load_default(14)) > 560:
            pen.text((36, top), line, "black", font=ImageFont.load_default(14))
            line, top = "", top + 20

    chart = Image.new("RGB", (640, 480), "white")
    pen = ImageDraw.Draw(chart)
    for number in range(10):
        height = 40 + 35 * number % 290
        colour = ("#4477aa", "#ee6677", "#228833")[number % 3]
        pen.rectangle((60 + 55 * number, 420 - height, 95 + 55 * number, 420), colour)
        pen.text((68 + 55 * number, 425), str(number), "black", font=ImageFont.load_default(12))
    pen.line([(60 + 5 * x, 220 + 90 * math.sin(x / 9)) for x in range(110)], "black", 2)
    pen.line([(50, 40), (50, 421), (620, 421)], "black", 1)

    # As rough as a photograph, between the lines of the page.
    rng = np.random.default_rng(0)
    scene = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
        (301, 227), Image.BICUBIC
    )
    grains = np.asarray(scene) + rng.normal(0, 4, (227, 301, 3))
    screen = page.copy()
    screen.paste(Image.fromarray(np.clip(grains, 0, 255).astype(np.uint8)), (171, 283))

    y, x = np.mgrid[0:256, 0:256]
    slope = np.stack((x, y, 255 - (x + y) // 2), 2).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    icon = chart.crop((50, 180, 250, 380)).resize((16, 16))
    return {
        "page of text": page,
        "the same in gray": page.convert("L"),
        "page with a photograph": screen,
        "chart": chart,
        "icon of 16 x 16": icon,
        "slope": Image.fromarray(slope),
        "one colour": Image.new("RGB", (512, 512), "#336699"),
        "noise": Image.fromarray(noise),
        "one pixel": Image.new("RGB", (1, 1), "#336699"),
    }


if __name__ == "__main__":
    main()
