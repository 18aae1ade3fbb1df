"""Uses of the package that a strict type checker accepts, and one that it must refuse; `make check` runs it.

The first block is the example of README.md.
"""

import vqcodec

data = vqcodec.encode("photo.png", quality=2.5)  # bytes; also arrays, tensors, PIL images, file objects
image = vqcodec.decode_image(data)  # .samples, .icc, .exif, .save(path), .to_pil(), .to_tensor(device)
print(image.width, image.height, vqcodec.info(data).bpp)

audio = vqcodec.decode_audio(vqcodec.encode("talk.wav"))  # .samples, .rate, .tags, .save(path)
print(audio.seconds, audio.tags.get("title"))

tokens = vqcodec.tokenize("photo.png", model="vqvae-image")  # LongTensor [h, w], values below 512
samples = vqcodec.detokenize(tokens, model="vqvae-image")  # float32 [3, H, W] in 0..1

vqcodec.encode(3)  # type: ignore[arg-type]
vqcodec.encode(samples, bpp=0.3)
vqcodec.encode_batch([image, audio, samples, "photo.png"])
