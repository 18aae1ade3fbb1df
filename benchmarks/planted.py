"""Plant one plausible fault per module and see whether the tests of that module notice.

python benchmarks/planted.py [--only media/ priors/]

Each fault is planted in a copy of the checkout, and the related tests are run there. Prints a table; the exit
code is 1 if more than one fault in ten went unnoticed.
"""

# ruff: noqa: E501 (a fault per line)

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Fault(NamedTuple):
    """A line, what it is changed to, and the tests (pytest arguments) that should notice."""

    module: str
    line: str
    fault: str
    tests: str


# fmt: off
FAULTS = [
    Fault("files.py", "os.fsync(file.fileno())", "pass", "test_files test_paths"),
    Fault("errors.py", "exit_code = 2", "exit_code = 1", "test_console"),
    Fault("bitstream/binary.py", "size > len(self.data) - self.at", "size >= len(self.data) - self.at", "test_container"),
    Fault("bitstream/binary.py", "if byte == 0 and shift:", "if False:", "test_container"),
    Fault("bitstream/container.py", "len(data) > total", "len(data) > total + 1", "test_container"),
    Fault("bitstream/header.py", "if not 0 < size <= limit:", "if not 0 < size < limit:", "test_container"),
    Fault("bitstream/header.py", "box.inflated <= box.size", "box.inflated < box.size", "test_container"),
    Fault("bitstream/geometry.py", "> MAX_FRAMES", ">= MAX_FRAMES", "test_geometry test_container"),
    Fault("bitstream/geometry.py", "(self.mid_side and self.channels != 2):", "False:", "test_geometry test_container"),
    Fault("bitstream/quality.py", "round(", "int(", "test_variable_rate test_rate_control"),
    Fault("media/opening.py", "source.tell() == 0:", "True:", "test_media_image_reading test_media_audio_reading"),
    Fault("media/guard.py", "if _inside == 0:\n            _limit,", "if True:\n            _limit,", "test_media_image_reading"),
    Fault("media/conversion.py", "highest // 2) // highest", "0) // highest", "test_media_image_samples"),
    Fault("media/metadata.py", "if value is not None and 1 <= value <= 8:", "if value is not None and 1 <= value < 8:", "test_media_image_metadata test_media_image_reading test_pipeline_encode"),
    Fault("media/tiff.py", "if len(value) > 4:", "if len(value) >= 4:", "test_media_image_writing test_media_image_metadata"),
    Fault("media/image.py", "if head[3:5] != (width, height):", "if head[3:5] != (height, width):", "test_media_image_writing test_pipeline_decode"),
    Fault("media/reading.py", "> max_pixels", ">= max_pixels", "test_media_image_reading"),
    Fault("media/tags.py", "if len(box) > MAX_TAGS:\n            raise ValueError", "if False:\n            raise ValueError", "test_media_audio_writing test_audio_decode"),
    Fault("media/audio_files.py", "size + -size % layout.multiple", "size", "test_media_audio_reading test_media_audio_damage"),
    Fault("metrics/image.py", "peak * peak / squared_error", "peak / squared_error", "test_metrics"),
    Fault("metrics/audio.py", "error <= 1e-20 * signal", "error < 1e-2 * signal", "test_sound_metrics"),
    Fault("metrics/spectra.py", "hop or window // 4", "window // 4", "test_spectra"),
    Fault("priors/base.py", "(cumulative <= (uniform", "(cumulative < (uniform", "test_sampling test_rangecoder"),
    Fault("priors/exact.py", "weights.sum(1, keepdims=True).astype(np.int64)\n", "weights.sum(1, keepdims=True).astype(np.int64) + 1\n", "test_learned_priors"),
    Fault("priors/gaussian.py", "(UNITS_PER_SCALE // 2 - (SCALE_MIN << 4))", "(0 - (SCALE_MIN << 4))", "test_gaussian"),
    Fault("priors/gaussian.py", "if index < END_STEP_BELOW", "if index <= END_STEP_BELOW", "test_gaussian"),
    Fault("priors/context.py", "1 << max(self.levels - (p + 1) // 2, 0)", "1 << max(self.levels - p // 2 - 1, 0)", "test_gaussian"),
    Fault("priors/scale_mixtures.py", "torch.where(total > RAREST, weights / total, self.ema_weight)", "weights / total.clamp(min=1e-12)", "test_scale_mixtures"),
    Fault("priors/scale_mixtures.py", "largest = max(", "largest = min(", "test_scale_mixtures"),
    Fault("models/variable_rate.py", "self.mixtures.counts(error, log2_scale)", "self.mixtures.counts(2 * error, log2_scale)", "test_variable_rate_training"),
    Fault("models/variable_rate.py", "self.mixtures.of(number, log2_scale)", "self.mixtures.of(0, log2_scale)", "test_variable_rate_training"),
    Fault("priors/context.py", "if a < b]", "if a <= b]", "test_gaussian test_variable_rate_training"),
    Fault("priors/static.py", "front[rows + 1] = prior.classes", "front[rows] = prior.classes", "test_static_prior"),
    Fault("priors/pixelcnn.py", "min(height, step // 2 + 1)", "min(height, step // 2)", "test_learned_priors"),
    Fault("priors/pixelcnn.py", "(0, 0, 1, 1, 1, 0))", "(0, 0, 2, 0, 1, 0))", "test_in_parallel"),
    Fault("priors/wavenet.py", "(0, 0, dilation, 0))[: len(now)]", "(0, 0, 1, 0))[: len(now)]", "test_in_parallel"),
    Fault("priors/attention.py", "before = time[some] < time", "before = time[some] <= time", "test_in_parallel"),
    Fault("priors/attention.py", "known += rows.shape[1]", "known += 1", "test_in_parallel"),
    Fault("priors/attention.py", "setdefault((row, column, *sides)", "setdefault((0, 0, *sides)", "test_in_parallel"),
    Fault("priors/attention.py", "np.argsort(numbers, kind=\"stable\")", "np.arange(len(numbers))", "test_in_parallel"),
    Fault("priors/pixelcnn.py", "inner[1:, :-1] += north_east[:-1, 1:]", "inner[1:, :-1] += north_east[:-1, :-1]", "test_in_parallel"),
    Fault("priors/wavenet.py", "active = t < self.lengths", "active = t <= self.lengths", "test_in_parallel"),
    Fault("priors/settings.py", "if not limits.low <= value <= limits.high:", "if not limits.low < value <= limits.high:", "test_settings test_training_refusals"),
    Fault("models/base.py", "- 1).bit_length())", ").bit_length())", "test_pipeline_chunks"),
    Fault("models/growth.py", "any(a > b", "any(a >= b", "test_growth"),
    Fault("models/ppca.py", "components.abs().argmax(1", "components.argmax(1", "test_ppca"),
    Fault("models/quantizers.py", "if count < size:", "if count <= size:", "test_quantizers"),
    Fault("models/equalization.py", "errors.append(error * (1 + 1e-3 * abs(exponent)) + 1e-12 * abs(exponent))", "errors.append(error)", "test_exact_synthesis"),
    Fault("models/equalization.py", 'keep("shallow.0", next(activations))', "next(activations)", "test_exact_synthesis"),
    Fault("models/adaptive_rounding.py", "left[:, n + 1 :] -=", "left[:, n + 1 :] +=", "test_exact_synthesis"),
    Fault("models/discriminators.py", "F.relu(1 - score).mean()", "F.relu(1 + score).mean()", "test_variable_rate_training test_vqvae_audio"),
    Fault("priors/exact_convolutions.py", "bias - _of_zeros(weight, zeros)", "bias", "test_exact_convolutions test_exact_synthesis"),
    Fault("models/rate_distortion.py", "INDICES_PER_LAMBDA_DOUBLING - 11", "INDICES_PER_LAMBDA_DOUBLING - 10", "test_variable_rate_training test_variable_rate"),
    Fault("models/vae.py", "return max(-(-encoder // 4), -(-decoder // 2))", "return max(-(-encoder // 4), -(-decoder // 2)) - 1", "test_halo"),
    Fault("models/variable_rate.py", "index, noisy=True, parts=parts, counts=counts)", "index, noisy=False, parts=parts, counts=counts)", "test_variable_rate_training"),
    Fault("models/variable_rate.py", "torch.rand_like(error) - 0.5 if noisy", "torch.round(error) - error if noisy", "test_variable_rate_training"),
    Fault("models/vqvae/discriminator.py", "-samples.shape[2] % self.period", "self.period - samples.shape[2] % self.period", "test_period_discriminator"),
    Fault("models/vqvae/hierarchical_point.py", "else -(-REACH // 2)", "else 0", "test_hierarchical"),
    Fault("models/vqvae/rates.py", "[1, float(itself), 0]", "[1, float(itself), 1]", "test_rates"),
    Fault("models/vqvae/mu_law.py", "clamp(0, LEVELS - 1)", "clamp(0, LEVELS)", "test_vqvae_audio"),
    Fault("models/vqvae/search_image.py", "torch.where((change < 0) & where", "torch.where((change > 0) & where", "test_search"),
    Fault("models/quantizers.py", "costs = self.distance_per_bit * self.bits", "costs = 0 * self.bits", "test_quantizers"),
    Fault("models/vqvae/envelope.py", "gains.exp()", "(-gains).exp()", "test_envelope"),
    Fault("transform/audio.py", "// period) * period", "// period)", "test_audio_blocks"),
    Fault("transform/highpass.py", "block[:, HALF : HALF + stop - start]", "block[:, : stop - start]", "test_highpass"),
    Fault("pipeline/channels.py", "min((b / a for", "max((b / a for", "test_highpass"),
    Fault("training/interpolation.py", "lerp_(before, share)", "lerp_(before, 1 - 0.5 * share)", "test_interpolation"),
    Fault("training/datasets/augmentation.py", "found *= loudness", "found *= 0.5 * loudness", "test_augmentation"),
    Fault("training/datasets/audio.py", "self.augmentation.context * self.rate", "0 * self.rate", "test_augmentation"),
    Fault("pipeline/fidelity.py", "if abs(deviations[worst]) > TOLERANCE_DB:", "if False:", "test_fidelity"),
    Fault("models/vqvae/search_audio.py", "< least:", "> least:", "test_audio_encode test_search"),
    Fault("transform/tiling.py", "max(self.start - self.halo, 0)", "max(self.start - self.halo + 1, 0)", "test_tiling test_audio_blocks"),
    Fault("transform/loudness.py", "if steps >= SOFTER[0] else 0", "if steps > SOFTER[0] else 0", "test_loudness"),
    Fault("transform/stereo.py", "left < 0", "left < -1", "test_stereo"),
    Fault("transform/stereo.py", "-delay[owners]", "delay[owners]", "test_stereo"),
    Fault("transform/stereo_analysis.py", "(left + floor * left.sum()) / (right", "(right + floor * left.sum()) / (right", "test_stereo"),
    Fault("transform/stereo_analysis.py", "sums[enough] / counts[enough]).max()", "sums[enough] / counts[enough]).mean()", "test_stereo"),
    Fault("pipeline/channels.py", "if not geometry.mid_side or geometry.gains[1]:", "if not geometry.mid_side:", "test_stereo"),
    Fault("transform/image.py", "if scale > 1:", "if scale > 2:", "test_variable_rate test_third_model"),
    Fault("transform/audio.py", "stop = min(start + block, len(channel))", "stop = min(start + block - 1, len(channel))", "test_audio_blocks test_audio_encode"),
    Fault("coding/rangecoder.py", "whole[:, -1] >= 128", "whole[:, -1] > 128", "test_rangecoder test_gaussian"),
    Fault("coding/rangecoder.py", "digits[count * bits :].any()", "False", "test_rangecoder test_pipeline_decode"),
    Fault("coding/chunks.py", "ideal < best.bits + SLACK_BITS", "ideal < best.bits - SLACK_BITS", "test_pipeline_chunks"),
    Fault("pipeline/encoding.py", "len(stored.data) <= limit", "len(stored.data) < limit", "test_rate_control"),
    Fault("pipeline/rate_control.py", "value < target if at_least", "value <= target if at_least", "test_rate_control"),
    Fault("pipeline/rate_control.py", "else value <= target", "else value < target", "test_rate_control"),
    Fault("pipeline/decoding.py", "if len(stream.settings) not in lengths:", "if False:", "test_pipeline_decode test_variable_rate"),
    Fault("pipeline/sampling.py", "if not 0 <= fraction <= 1:", "if not 0 <= fraction < 1:", "test_sampling"),
    Fault("weights.py", "if fingerprint(tensors, model.decoding, card.config) != card.fingerprint:", "if False:", "test_weights"),
    Fault("evaluation/candidates.py", "encoded.count / estimate - 1", "encoded.count / estimate", "test_evaluation"),
    Fault("evaluation/baselines/image.py", "if self.size(middle) <= size", "if self.size(middle) < size", "test_evaluation"),
    Fault("evaluation/tables.py", "if there.keys() <= set(order)", "if there.keys() < set(order)", "test_evaluation"),
    Fault("evaluation/disk.py", "and p.is_file()", "", "test_evaluation"),
    Fault("training/checkpoints.py", "[: -max(keep, 1)]", "[: -max(keep, 2)]", "test_training_resume test_training_runs"),
    Fault("training/datasets/files.py", "len(files) - 1)\n", "len(files))\n", "test_datasets"),
    Fault("training/datasets/image.py", "max(height - side, 0) + 1)", "max(height - side, 0))", "test_datasets"),
    Fault("training/datasets/audio.py", "1 / peak)", "2 / peak)", "test_sound_datasets"),
    Fault("training/settings.py", "not 0 < share < 1", "not 0 <= share < 1", "test_training_refusals"),
    Fault("training/trainer.py", "max(self.settings.warmup, 1)", "max(self.settings.warmup, 9)", "test_training_schedule"),
    Fault("training/plan.py", "limits[key].may_shrink if now < before else limits[key].may_grow", "limits[key].may_grow if now < before else limits[key].may_shrink", "test_training_resume test_growth test_training_refusals"),
    Fault("coding/driver.py", "(positions[0] < prefix[step.plane])", "(positions[0] <= prefix[step.plane])", "test_sampling test_gaussian test_learned_priors"),
    Fault("priors/gaussian_tables.py", "low = high - np.sign(high)", "low = high + np.sign(high)", "test_gaussian test_variable_rate"),
    Fault("placeholders/layout.py", "p0 - 2 * p2", "p0 - p2", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/layout.py", "(colours + 16384) >> 7", "(colours + 16320) >> 7", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/layout.py", "np.sqrt(2.0) ** zeros", "np.sqrt(2.0)", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/rangecoder.py", "point << shift < self._low + self._range", "point << shift <= self._low + self._range", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/rangecoder.py", "if value >= TOTAL:", "if False:", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/text.py", "_POLYNOMIAL = 0b000011", "_POLYNOMIAL = 0b000001", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/text.py", " or pack(number, payload) != text", "", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/text.py", "if number:", "if False:", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/tables.py", "piece.sum() != TOTAL", "False", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/tables.py", "if number < 0:", "if number < -1:", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/encoding.py", "if len(payload) < size:", "if len(payload) <= size:", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/encoding.py", "np.stack((np.zeros_like(low), low, low + 1))", "np.stack((np.zeros_like(low), low, low))", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/decoding.py", "min(max(height, 1), LONGEST_SIDE)", "max(height, 1)", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("placeholders/fitting.py", "found[found.argmax()] += TOTAL - found.sum()", "found[0] += TOTAL - found.sum()", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("models/thumbnail.py", "left * self.noise.log()", "self.noise.log()", "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("thumbnails.py", 'PIL.Image.new("RGB", side, "white")', 'PIL.Image.new("RGB", side, "black")', "test_placeholders test_placeholder_script test_thumbnail_model"),
    Fault("priors/factorised.py", "- SCALE_MIN + 1) // 3", "- SCALE_MIN + 4) // 3", "test_placeholders test_placeholder_script test_thumbnail_model"),
]
# fmt: on


def copy_to(folder: Path) -> None:
    """Copy what tests need, and lay it out under its import name."""
    for name in ("codec", "cli", "pretrained", "tests", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.md"), ROOT / "pyproject.toml"):
        shutil.copy(path, folder)
    package = folder / "build" / "types" / "vqcodec"
    package.mkdir(parents=True)
    for path in (*(folder / "codec").iterdir(), folder / "cli", folder / "pretrained"):
        (package / path.name).symlink_to(path)


def noticed(fault: Fault, folder: Path) -> bool:
    """Plant a fault, run the tests, and take it out again."""
    path = folder / "codec" / fault.module
    sound = path.read_text()
    if fault.line not in sound:
        raise SystemExit(f"{fault.module} has no {fault.line!r}")
    path.write_text(sound.replace(fault.line, fault.fault, 1))
    tests = [str(file) for name in fault.tests.split() if (file := folder / "tests" / f"{name}.py").exists()]
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "build" / "types"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    finally:
        path.write_text(sound)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stdout.decode()[-2000:] + done.stderr.decode()[-2000:])
    return done.returncode == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of modules, such as priors/")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if fault.module.startswith(tuple(options.only))]
    missed = []
    print("| module | fault | noticed | seconds |\n|---|---|---|---:|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        copy_to(Path(name))
        for fault in faults:
            started = time.monotonic()
            found = noticed(fault, Path(name))
            missed += [] if found else [fault]
            text = f"`{fault.line.strip()}` -> `{fault.fault.strip()}`".replace("\n", " ").replace("|", "\\|")
            seconds = time.monotonic() - started
            print(f"| {fault.module} | {text} | {'yes' if found else '**no**'} | {seconds:.0f} |", flush=True)
    print(f"\n{len(faults) - len(missed)} of {len(faults)} noticed")
    sys.exit(1 if len(missed) > len(faults) / 10 else 0)


if __name__ == "__main__":
    main()
