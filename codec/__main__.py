"""`python -m vqcodec`."""

from .cli.main import run

if __name__ == "__main__":
    run()
