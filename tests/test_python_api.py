"""Images and audio as arrays, tensors, pictures and players; batches; tokens."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import soundfile
import torch
import vqcodec
from conftest import draw, sing
from vqcodec import media, pipeline
from vqcodec.errors import MediaError, UsageError
from vqcodec.media import Audio, Image


def test_an_image_is_an_array_and_a_picture() -> None:
    pixels, alpha = draw(40, 30), np.full((30, 40), 7, np.uint8)
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    exif = PIL.Image.Exif()
    exif[271] = "Leica"
    image = Image(pixels, alpha, icc=profile, exif=exif.tobytes().removeprefix(b"Exif\0\0"))
    assert np.array_equal(np.asarray(image), pixels) and np.asarray(image) is image.samples
    assert np.asarray(image, np.float32).dtype == np.float32
    assert np.array(image) is not image.samples
    with pytest.raises(ValueError, match="copy"):
        np.asarray(image, np.float32, copy=False)
    picture = image.to_pil()
    assert (picture.mode, picture.size, picture.info["icc_profile"]) == ("RGBA", (40, 30), profile)
    assert np.array_equal(np.asarray(picture)[..., :3], pixels)
    # A picture that goes on its way through `encode` keeps what it has.
    again = media.read_image(picture)
    assert again.icc == profile and b"Leica" in (again.exif or b"") and np.array_equal(again.alpha, alpha)
    assert repr(image) == "<Image 40 x 30 RGB, alpha, icc, exif>"
    assert repr(Image(pixels[..., :1])) == "<Image 40 x 30 gray>"


def test_a_notebook_shows_an_image_in_a_bounded_size() -> None:
    with PIL.Image.open(io.BytesIO(Image(draw(60, 40))._repr_png_())) as picture:
        assert np.array_equal(np.asarray(picture), draw(60, 40))
    with PIL.Image.open(io.BytesIO(Image(np.zeros((50, 3000, 1), np.uint8))._repr_png_())) as picture:
        assert picture.size == (1024, 17)


def test_a_notebook_plays_audio() -> None:
    signal = sing(2, rate=44_100, channels=2)
    audio = Audio.of(signal, 44_100)
    page = audio._repr_html_()
    assert repr(audio) == "<Audio 2.00 s, 44100 Hz, 2 channels>" and repr(audio)[1:-1] in page
    data = page.split("base64,")[1].split('"')[0]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert rate == 44_100 and np.abs(samples - np.asarray(audio)).max() < 1e-4
    long = Audio(np.zeros((1, 16_000 * 301), np.float32), 16_000, 8_000, 8_000 * 301)
    assert "the first 300 s" in long._repr_html_() and len(long._repr_html_()) < 1 << 20
    many = Audio.of(np.zeros((800, 9), np.float32), 8_000)
    assert "data:audio/wav" in many._repr_html_()


def test_tensors_go_in_and_out(small: str) -> None:
    pixels = draw(40, 30)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    data = vqcodec.encode(pixels, model=small)
    assert vqcodec.encode(tensor, model=small) == data
    assert vqcodec.encode((tensor / 255).requires_grad_(), model=small) == data
    decoded = vqcodec.decode_image(data, model=small)
    back = decoded.to_tensor()
    assert back.shape == (3, 30, 40) and back.dtype == torch.float32
    assert np.array_equal(media.read_image(back).samples, decoded.samples)
    signal = torch.from_numpy(sing(0.2, channels=2)).T
    audio = Audio.of(signal, 16_000)
    assert torch.equal(audio.to_tensor(), signal.contiguous())
    assert Audio.of(signal[0], 16_000).channels == 1


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(30, 40), r"float32 \[30, 40\]"),
        (torch.zeros(30, 40, 3), r"float32 \[30, 40, 3\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), r"int64 \[3, 4, 4\]"),
        (torch.full((3, 4, 4), 255.0), "values from 255 to 255"),
        (torch.full((3, 4, 4), -0.1), "values from -0.1"),
        (torch.full((3, 4, 4), torch.nan), "values from nan"),
        (torch.zeros(3, 0, 4), "no samples"),
    ],
)
def test_tensors_that_are_no_images(tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        vqcodec.encode(tensor)


def test_what_is_decoded_has_one_type(small: str, small_sound: str) -> None:
    picture = vqcodec.encode(draw(20, 20), model=small)
    sound = vqcodec.encode(Audio.of(sing(0.2), 16_000), model=small_sound)
    assert isinstance(vqcodec.decode_image(picture, model=small), Image)
    assert isinstance(vqcodec.decode_audio(sound, model=small_sound), Audio)
    with pytest.raises(MediaError, match="audio, not an image"):
        vqcodec.decode_image(sound, model=small_sound)
    with pytest.raises(MediaError, match="an image, not audio"):
        vqcodec.decode_audio(picture, model=small)


def test_a_batch_has_the_bytes_of_each(
    small: str, sound_prior: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the borders of batches, of different sizes, with a learned prior."""
    monkeypatch.setattr(pipeline, "BATCH", 2)
    pictures = [draw(40, 30), draw(17, 64), draw(40, 30, 1)]
    alone = [vqcodec.encode(pixels, model=small) for pixels in pictures]
    assert vqcodec.encode_batch(iter(pictures), model=small, quality=3) == alone
    weights = str(sound_prior.best)  # type: ignore[attr-defined]
    sounds = [Audio.of(sing(seconds, seed=2), 16_000) for seconds in (0.3, 0.7)]
    assert vqcodec.encode_batch(sounds, model=weights) == [vqcodec.encode(s, model=weights) for s in sounds]
    assert vqcodec.encode_batch([]) == []
    with pytest.raises(MediaError):
        vqcodec.encode_batch(["gone.png"], model=small)


def test_tokens_of_images_are_those_of_the_bitstream(small: str) -> None:
    pixels = draw(42, 30)
    tokens = vqcodec.tokenize(pixels, model=small, device="cpu")
    encoded = pipeline.encode_file(pixels, pipeline.EncodeOptions(model=small, effort=0, device="cpu"))
    assert tokens.dtype == torch.int64 and tokens.shape == (8, 11)
    assert np.array_equal(tokens.numpy(), encoded.symbols["codes"])
    decoded = vqcodec.decode_image(encoded.data, model=small, device="cpu").samples
    samples = vqcodec.detokenize(tokens, model=small)
    assert samples.shape == (3, 32, 44)
    assert np.abs(255 * samples.permute(1, 2, 0).numpy()[:30, :42] - decoded).max() <= 0.51
    both = torch.from_numpy(np.stack((pixels, pixels[::-1].copy()))).permute(0, 3, 1, 2)
    batch = vqcodec.tokenize(both, model=small)
    assert torch.equal(batch[0], tokens) and batch.shape == (2, 8, 11)
    assert torch.equal(vqcodec.tokenize([*both], model=small), batch)
    assert vqcodec.detokenize(batch, model=small).shape == (2, 3, 32, 44)


def test_tokens_of_audio(small_sound: str) -> None:
    audio = Audio.of(sing(0.5, channels=2), 16_000)
    tokens = vqcodec.tokenize(audio, model=small_sound, device="cpu")
    encoded = pipeline.encode_file(audio, pipeline.EncodeOptions(model=small_sound, effort=0, device="cpu"))
    assert np.array_equal(tokens.numpy(), encoded.symbols["codes"]) and tokens.shape == (2, 125)
    signal = vqcodec.detokenize(tokens, model=small_sound)
    assert signal.shape == (2, 125 * 64)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(4, 4), r"tokens are float32 \[4, 4\]"),
        (torch.zeros(4, dtype=torch.int64), r"tokens are int64 \[4\]"),
        (torch.full((4, 4), 64), "tokens from 64 to 64"),
        (torch.full((4, 4), -1), "tokens from -1 to -1"),
    ],
)
def test_what_is_no_token(small: str, tokens: torch.Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        vqcodec.detokenize(tokens, model=small)


def test_models_without_tokens(small: str, tmp_path: Path) -> None:
    several = "several levels of codes"
    for name, why in (
        ("ppca-image", "latents, not codes"),
        ("vqvae2-image", several),
        ("rvqvae-audio", several),
    ):
        with pytest.raises(UsageError, match=f"{name} has {why}"):
            vqcodec.tokenize(draw(8, 8), model=name)
    with pytest.raises(UsageError, match="tokens are a ndarray"):
        vqcodec.detokenize(np.zeros((2, 2), np.int64), model=small)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is for image"):
        vqcodec.tokenize(Audio.of(sing(0.1), 16_000), model=small)
    with pytest.raises(MediaError, match="a batch of different sizes"):
        vqcodec.tokenize([draw(8, 8), draw(8, 16)], model=small)
