"""Write the weights into docs/placeholder.js, the decoder of placeholders, and a page of placeholders.

python docs/placeholder_page.py             the script
python docs/placeholder_page.py PHOTOS...   also placeholders.html, a page of these images' placeholders
"""

import base64
import html
import re
import sys
from pathlib import Path

import vqcodec
from vqcodec import thumbnails
from vqcodec.placeholders.tables import STEPS

DOCS = Path(__file__).parent

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>vqcodec placeholders</title>
<style>
  body {{ font-family: sans-serif; margin: 2em; }}
  main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(12em, 1fr)); gap: 1em; }}
  canvas {{ width: 100%; }}
  figure {{ margin: 0; }}
  figcaption {{ font: 0.6em monospace; overflow-wrap: anywhere; }}
</style>
<script src="{script}"></script>
<h1>{count} images, {size} bytes each at most</h1>
<main>
{figures}
</main>
</html>
"""


def script() -> str:
    """The decoder with the weights and steps of the package."""
    weights = base64.b64encode(thumbnails.searcher().tables.to_bytes()).decode()
    text = (DOCS / "placeholder.js").read_text()
    text = re.sub(r'const WEIGHTS = "[^"]*"', f'const WEIGHTS = "{weights}"', text)
    return re.sub(r"const STEPS = \[[^]]*\]", f"const STEPS = [{', '.join(map(str, STEPS))}]", text)


def page(texts: list[str], script: str = "placeholder.js", size: int = 24, width: int = 96) -> str:
    """A page that draws placeholders."""
    figures = "\n".join(
        f'<figure><canvas data-placeholder="{html.escape(text)}" data-width="{width}"></canvas>'
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
        for text in texts
    )
    return PAGE.format(script=script, count=len(texts), size=size, figures=figures)


if __name__ == "__main__":
    (DOCS / "placeholder.js").write_text(script())
    if len(sys.argv) > 1:
        texts = [vqcodec.placeholder(path) for path in sys.argv[1:]]
        (DOCS / "placeholders.html").write_text(page(texts))
