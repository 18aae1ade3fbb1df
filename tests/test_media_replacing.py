"""Saving over a file: the old one is there until the new one is whole."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
from vqcodec import media
from vqcodec.media import opening

IMAGES = ("png", "jpg", "webp", "tiff", "avif", "bmp")
AUDIO = ("wav", "flac", "ogg", "opus", "mp3", "aiff")
BOTH = pytest.mark.parametrize("suffix", [*IMAGES, *AUDIO])


def something(suffix: str) -> media.Image | media.Audio:
    if suffix in IMAGES:
        return media.Image(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8))
    time = np.arange(16_000, dtype=np.float32) / 16_000
    return media.Audio.of(np.sin(2000 * time), 16_000)


@BOTH
def test_a_failure_midway_leaves_the_old_file(suffix: str, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / f"out.{suffix}"
    path.write_bytes(b"old")

    def broken(*arguments: Any, **_: Any) -> None:
        for stream in arguments:
            if hasattr(stream, "write") and not isinstance(stream, soundfile.SoundFile):
                stream.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        if suffix == "tiff":
            context.setattr(media.image, "write_tiff", broken)
        elif suffix in IMAGES:
            PIL.Image.init()
            context.setitem(PIL.Image.SAVE, media.IMAGE_FORMATS[f".{suffix}"], broken)
        else:
            context.setattr(soundfile.SoundFile, "write", broken)
        with pytest.raises(OSError, match="No space left"):
            something(suffix).save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@BOTH
def test_the_old_file_is_there_while_the_new_one_is_written(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{suffix}"
    something(suffix).save(path)
    old = path.read_bytes()
    path.chmod(0o604)
    with opening.created(path) as file:
        file.write(b"half")
        assert path.read_bytes() == old
        assert file.seek(0) == 0
    assert path.read_bytes() == b"half"
    something(suffix).save(path)
    assert len(path.read_bytes()) == len(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["png", "tiff", "wav"])
def test_a_link_keeps_pointing_to_what_is_replaced(suffix: str, tmp_path: Path) -> None:
    path, link = tmp_path / "real", tmp_path / f"link.{suffix}"
    path.write_bytes(b"old")
    link.symlink_to(path)
    something(suffix).save(link)
    assert link.is_symlink()
    assert type(media.read(path)) is type(something(suffix))


@pytest.mark.parametrize("suffix", ["png", "tiff", "wav", "flac"])
def test_a_named_pipe_is_written_to_and_stays(suffix: str, tmp_path: Path) -> None:
    pipe = tmp_path / f"pipe.{suffix}"
    os.mkfifo(pipe)
    parts: list[bytes] = []
    reader = threading.Thread(target=lambda: parts.append(pipe.read_bytes()), daemon=True)
    reader.start()
    something(suffix).save(pipe)
    reader.join(30)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert type(media.read(parts[0])) is type(something(suffix))
