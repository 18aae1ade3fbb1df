"""Speed of both decoders vs. Opus in the same process, and the peak memory of both commands.

python benchmarks/sound_speed.py TAR [--seconds 60] [--model M] [--quality Q] [--effort 1] [--runs 5] [--cpu]
python benchmarks/sound_speed.py TAR --hours 1
"""

import argparse
import io
import multiprocessing
import os
import platform
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from speed import peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, help="a tar file whose speech/ is joined end to end")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--model")
    parser.add_argument("--quality", type=float)
    parser.add_argument("--effort", type=int, default=1)
    parser.add_argument("--decoder", default="wavenet", help="the second decoder; '' for none")
    parser.add_argument("--runs", type=int, default=5, help="number of runs, whose median is printed")
    parser.add_argument(
        "--cpu", action="store_true", help="count seconds of the processor, where others use it too; no Opus"
    )
    parser.add_argument(
        "--hours", type=float, help="measure peak memory with a stereo WAV of 44.1 kHz instead"
    )
    options = parser.parse_args()
    # As the command line does, before numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if options.hours:
        memory(options.source, options.hours, options.model)
    else:
        speed(options)


def speed(options: argparse.Namespace) -> None:
    # Imported only here: `speed.peak` would count the memory of this process for its children.
    import torch
    from vqcodec import media, pipeline
    from vqcodec.evaluation.baselines import audio as baselines

    signal = speech(options.source, options.seconds * 16_000)
    original = media.Audio(signal[None], 16_000, 16_000, len(signal))
    torch.set_num_threads(1)
    chosen = {"model": options.model, "quality": options.quality, "effort": options.effort}
    data = pipeline.encode_file(original, pipeline.EncodeOptions(**chosen)).data
    work: dict[str, Callable[[], object]] = {
        "encode": lambda: pipeline.encode_file(original, pipeline.EncodeOptions(**chosen)),
        "decode": lambda: pipeline.decode(data, model=options.model),
    }
    seconds: dict[str, list[float]] = {
        name: [] for name in ("encode", "decode", "opus encode", "opus decode")
    }
    for call in work.values():
        call()
    clock = time.process_time if options.cpu else time.perf_counter
    # Alternating, so that a slow minute of the machine is a slow minute for all.
    for _ in range(options.runs):
        for name, call in work.items():
            started = clock()
            call()
            seconds[name].append(clock() - started)
        if options.cpu:
            continue
        opus = baselines.run(original, "opus:6")
        seconds["opus encode"].append(opus.encode_seconds)
        seconds["opus decode"].append(opus.decode_seconds)
    rate = {name: options.seconds / statistics.median(times) for name, times in seconds.items() if times}
    print(f"{options.seconds} s of speech, {len(data):,} bytes, median of {options.runs} runs,", end=" ")
    print(f"{platform.machine()}, torch {torch.__version__}, x real time.\n")
    print("| | threads | ours | Opus 6 kbit/s | ours / Opus |\n|---|---:|---:|---:|---:|")
    for name in ("encode", "decode"):
        other = rate.get(f"opus {name}")
        compared = f"{other:.0f} | {rate[name] / other:.3f}" if other else " | "
        print(f"| {name} | 1 | {rate[name]:.1f} | {compared} |", flush=True)
    if options.decoder:
        torch.set_num_threads(2)
        started = time.perf_counter()
        pipeline.decode(data, model=options.model, decoder=options.decoder)
        print(
            f"| decode, {options.decoder} | 2 | {options.seconds / (time.perf_counter() - started):.2f} | | |"
        )


def memory(source: Path, hours: float, model: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wav, vqc, decoded = (Path(folder, name) for name in ("talk.wav", "talk.vqc", "decoded.wav"))
        # In its own process, see `speed.peak`.
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(source, hours, wav))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit(maker.exitcode)
        chosen = ["-m", model] if model else []
        program = [sys.executable, "-m", "vqcodec"]
        encode = [*program, "encode", wav, "-o", vqc, "--quiet", *chosen]
        decode = [*program, "decode", vqc, "-o", decoded, "--quiet", *chosen]
        print(f"{hours:g} h of stereo at 44.1 kHz, a WAV of {wav.stat().st_size / 1e6:.0f} MB\n")
        print("| command | peak resident memory, MiB | seconds |\n|---|---:|---:|")
        for name, command in (("vqcodec encode", encode), ("vqcodec decode", decode)):
            mebibytes, seconds = peak([str(part) for part in command])
            print(f"| `{name}` | {mebibytes:,.0f} | {seconds:.0f} |", flush=True)
        print(f"\n{vqc.stat().st_size / 1e6:.2f} MB in between")


def make(source: Path, hours: float, path: Path) -> None:
    """Write a WAV with different speech in its two channels."""
    import numpy as np
    import soundfile
    import soxr

    talk = soxr.resample(speech(source, 120 * 16_000), 16_000, 44_100)
    stereo = np.stack((talk, np.roll(talk, 44_100 * 17)), 1)
    with soundfile.SoundFile(path, "w", 44_100, 2, "PCM_16") as file:
        left = round(hours * 3600 * 44_100)
        while left > 0:
            file.write(stereo[:left])
            left -= len(stereo)


def speech(source: Path, count: int):
    """Return `count` samples of speech at 16 kHz, float32: files joined, and repeated as needed."""
    import numpy as np
    import soundfile

    with tarfile.open(source) as tar:
        members = [m for m in tar if m.isfile() and m.name.startswith("speech/")]
        pieces = [soundfile.read(io.BytesIO(tar.extractfile(m).read()), dtype="float32")[0] for m in members]
    return np.resize(np.concatenate(pieces), count)


if __name__ == "__main__":
    main()
