"""What pyproject.toml cannot say: the addresses of this repository, and a README whose links begin with them.

They are those of the checkout's own remote "origin", so a fork links to itself; an sdist keeps those that it
was built with. Without any, there are no project URLs, and links stay relative.
"""

import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from setuptools import setup

ROOT = Path(__file__).parent
PAGES = {"Source": "", "Documentation": "/blob/HEAD/README.md", "Issues": "/issues"}
PAGES["Changelog"] = "/blob/HEAD/CHANGELOG.md"


def web_address(remote: str) -> str:
    """Return the address of a remote in a browser, without credentials; empty for a folder."""
    remote = re.sub(r"^(?:ssh://)?git@([^:/]+)[:/]", r"https://\1/", remote.strip())
    parts = urlsplit(remote)
    if parts.scheme != "https" or not parts.hostname:
        return ""
    port = f":{parts.port}" if parts.port else ""
    return f"https://{parts.hostname}{port}{parts.path}".removesuffix("/").removesuffix(".git")


def address(root: Path) -> str:
    """Return the address of the repository in a folder, or of the one that an sdist was built from."""
    if (root / "PKG-INFO").is_file():
        found = re.search(r"^Project-URL: Source, (\S+)$", (root / "PKG-INFO").read_text("utf-8"), re.M)
        return found[1] if found else ""
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return web_address(result.stdout) if result.returncode == 0 else ""


def absolute(text: str, base: str) -> str:
    """Begin the relative links and pictures of a Markdown text with an address; anchors stay."""
    if not base:
        return text
    text = re.sub(r"(!\[[^]]*\]\()(?![a-z]+:|#)", rf"\1{base}/raw/HEAD/", text)
    return re.sub(r"((?<!!)\[[^]]*\]\()(?![a-z]+:|#|/)", rf"\1{base}/blob/HEAD/", text)


if __name__ == "__main__":
    home = address(ROOT)
    setup(
        long_description=absolute((ROOT / "README.md").read_text("utf-8"), home),
        long_description_content_type="text/markdown",
        project_urls={name: home + page for name, page in PAGES.items()} if home else {},
    )
