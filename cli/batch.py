"""Process many files: report and count each failure, and go on with the others."""

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vqcodec.bitstream.container import AudioGeometry, ImageGeometry
from vqcodec.errors import DamageWarning, MediaError, UsageError, VqcodecWarning
from vqcodec.files import is_special

from .console import Bar, Console, clock_text, explain, size_text, time_text
from .paths import Found, Input, Job, check_free, taken
from .streams import OutputError

Fields = dict[str, Any]


class Batch:
    """Count and report the result of each input.

    Attributes:
        code: the exit code so far.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.code = 0
        self.counts = {"ok": 0, "failed": 0, "skipped": 0}
        self.bytes_in = self.bytes_out = 0
        self.pixels, self.audio_seconds = 0, 0.0
        self._started = time.perf_counter()

    def report_found(self, found: Found, foreign: str) -> None:
        """Report what `find` could not use: failed arguments, and files of another kind in folders."""
        for name, error in found.failed:
            self.fail(name, error)
        for name in found.foreign:
            self.console.note(f"{name}: skipped, {foreign}")
        for name, why in found.passed:
            self.console.note(f"{name}: skipped, {why}")

    def skip_existing(self, jobs: list[Job]) -> list[Job]:
        """Return the jobs whose output does not exist; count and report the others."""
        todo = []
        for job in jobs:
            if job.output is not None and taken(job.output):
                self.counts["skipped"] += 1
                self.console.note(f"{job.source.name}: skipped, {job.output} exists", level=1)
                self.console.record(
                    type="file", input=job.source.name, output=str(job.output), status="skipped"
                )
            else:
                todo.append(job)
        return todo

    def run(self, source: Input, work: Callable[[], Fields]) -> Fields | None:
        """Process one input; print its warnings and its error with its name.

        Args:
            source: the input.
            work: returns fields of the input's JSON record; "warnings" and "status" are added here.

        Returns:
            The record, or None after a failure.

        Raises:
            UsageError: the options are wrong, not this input.
        """
        started = time.perf_counter()
        error: Exception | None = None
        fields: Fields = {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", VqcodecWarning)
            try:
                fields = work()
            except (UsageError, BrokenPipeError, OutputError):
                raise
            except Exception as problem:
                error = problem
        messages = list(dict.fromkeys(str(warning.message) for warning in caught))
        for text in messages:
            self.console.warning(source.name, text)
        if error is not None:
            self.fail(source.name, error)
            return None
        damaged = any(issubclass(warning.category, DamageWarning) for warning in caught)
        if damaged or fields.get("status") == "damaged":
            self.code = max(self.code, 1)
            self.counts["failed"] += 1
            fields["status"] = "damaged"
        else:
            self.counts["ok"] += 1
        self.bytes_in += fields.get("bytes_in", 0)
        self.bytes_out += fields.get("bytes_out", 0)
        record: Fields = {"type": "file", "input": source.name, "status": "ok"} | fields
        record |= {"seconds": round(time.perf_counter() - started, 3)}
        if messages:
            record["warnings"] = messages
        self.console.record(**record)
        return record

    def count(self, geometry: ImageGeometry | AudioGeometry) -> None:
        """Add the pixels or seconds of a compressed file to the totals."""
        if isinstance(geometry, AudioGeometry):
            self.audio_seconds += geometry.seconds
        else:
            self.pixels += geometry.width * geometry.height

    def fail(self, name: str, error: Exception) -> None:
        """Report that one input failed."""
        self.counts["failed"] += 1
        code = self.console.fail(name, error)
        self.code = max(self.code, code)
        message, hint, _ = explain(error)
        self.console.record(type="file", input=name, status="error", error=message, hint=hint)

    def finish(self, *, sizes: bool = True) -> int:
        """Print a summary if there was more than one input; return the exit code."""
        total = sum(self.counts.values())
        summary: Fields = {"type": "summary", **self.counts}
        if sizes:
            summary |= {"bytes_in": self.bytes_in, "bytes_out": self.bytes_out}
        self.console.record(**summary)
        if sizes and total > 1 and not self.console.json:
            self.console.note(self._line(total))
        return self.code

    def _line(self, total: int) -> str:
        parts = [f"{self.counts['ok']} of {total} files" if self.counts["ok"] < total else f"{total} files"]
        for what in ("failed", "skipped"):
            if self.counts[what]:
                parts[0] += f", {self.counts[what]} {what}"
        if self.bytes_out:
            rate = rate_text(self.bytes_out, self.pixels, self.audio_seconds)
            compressed = bool(self.pixels or self.audio_seconds)
            parts.append(sizes_text(self.bytes_in, self.bytes_out, rate, compressed=compressed))
        parts.append(time_text(time.perf_counter() - self._started))
        return "  ".join(parts)


def sizes_text(bytes_in: int, bytes_out: int, rate: str = "", *, compressed: bool = False) -> str:
    """Format the sizes before and after; for a compression also the ratio, and the rate if there is one."""
    text = f"{size_text(bytes_in)} -> {size_text(bytes_out)}"
    if compressed and bytes_out:
        text += f"  ({', '.join(part for part in (f'{bytes_in / bytes_out:.1f}x', rate) if part)})"
    return text


def rate_text(size: int, pixels: int, audio_seconds: float) -> str:
    """Format a rate: in bpp for images alone, in kbit/s for audio alone, empty for both."""
    if pixels and not audio_seconds:
        return f"{8 * size / pixels:.2f} bpp"
    if audio_seconds and not pixels:
        return f"{size / 125 / audio_seconds:.2f} kbit/s"
    return ""


def extent(geometry: ImageGeometry | AudioGeometry) -> Fields:
    """Return the size fields of a record: those of an image, or of audio."""
    if isinstance(geometry, AudioGeometry):
        return {
            "audio_seconds": round(geometry.seconds, 3),
            "rate": geometry.rate,
            "channels": geometry.channels,
        }
    return {"width": geometry.width, "height": geometry.height}


def work_through(batch: Batch, verb: str, jobs: list[Job], work: Callable[[Job, Bar], Fields]) -> None:
    """Run every job behind one progress bar, and print a line for each if the options ask for it."""
    console = batch.console
    with console.bar(verb, len(jobs)) as bar:
        for number, job in enumerate(jobs):
            bar.item(number, job.source.below.name)
            record = batch.run(job.source, lambda job=job: work(job, bar))  # type: ignore[misc]
            if record is not None and not console.json:
                alone = len(jobs) == sum(batch.counts.values()) == 1
                console.note(
                    _file_line(record), level=0 if alone or {"psnr_db", "si_sdr_db"} & record.keys() else 1
                )


def _file_line(record: Fields) -> str:
    target = f" -> {record['output']}" if "output" in record else ""
    parts = [f"{record['input']}{target}"]
    compressed = "bpp" in record or "kbps" in record
    if "bytes_in" in record and "bytes_out" in record:
        rate = f"{record['bpp']:.2f} bpp" if "bpp" in record else ""
        rate = f"{record['kbps']:.2f} kbit/s" if "kbps" in record else rate
        parts.append(sizes_text(record["bytes_in"], record["bytes_out"], rate, compressed=compressed))
    for key, name in (("psnr_db", ""), ("si_sdr_db", "SI-SDR ")):
        if key in record:
            loss = "no loss" if record[key] == math.inf else f"{name}{record[key]:.2f} dB"
            parts.append(f"verified, {loss}")
    if not compressed and "width" in record:
        parts.append(f"{record['width']} x {record['height']}")
    if not compressed and "audio_seconds" in record:
        parts.append(clock_text(record["audio_seconds"]))
    if record["status"] != "ok":
        parts.append(str(record["status"]))
    parts.append(time_text(record["seconds"]))
    return "  ".join(parts)


def check_overwriting(force: bool, skip_existing: bool) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: both are given.
    """
    if force and skip_existing:
        raise UsageError("-f and --skip-existing exclude each other", "give one of them")


def check_json(console: Console, jobs: list[Job]) -> None:
    """Refuse to write bytes and records to stdout.

    Raises:
        UsageError: both are asked for.
    """
    if console.json and any(job.output is None for job in jobs):
        raise UsageError("--json and a result on stdout exclude each other", "name a file with -o FILE")


def refuse_existing(job: Job, force: bool) -> None:
    """Refuse an output that exists, before any work is done.

    Raises:
        MediaError: the output exists, or is a pipe or device that happens to have its name.
    """
    if job.output is None:
        return
    if not job.named and is_special(job.output) and not job.output.is_dir():
        raise MediaError(f"{job.output} is a pipe, device or socket", "write elsewhere with -o")
    check_free(job.output, force)


def rehearse(batch: Batch, jobs: list[Job], force: bool, plan: Callable[[Job], Fields]) -> int:
    """List what would be done and what would be refused; return the exit code.

    Args:
        batch: counts and reports.
        jobs: what would be done.
        force: replace existing outputs.
        plan: returns fields for the record and the line of a job; may refuse it.
    """
    for job in jobs:
        planned: Fields = {}

        def work(job: Job = job, planned: Fields = planned) -> Fields:
            refuse_existing(job, force)
            planned |= plan(job)
            return {"output": shown(job.output), "status": "planned", **planned}

        record = batch.run(job.source, work)
        if record is not None:
            details = "  ".join(f"{key} {value}" for key, value in planned.items())
            batch.console.out(f"{record['input']} -> {record['output']}  {details}".rstrip())
    return batch.finish(sizes=False)


def shown(output: Path | None) -> str:
    """Return the name of an output in messages."""
    return "stdout" if output is None else str(output)


def plain(number: float) -> float:
    """Return a whole number as int, so that it prints without ".0"."""
    return int(number) if float(number).is_integer() else number


def use_threads(jobs: int | None) -> None:
    """Limit torch to this many threads; None leaves its default, all cores."""
    if jobs is not None:
        import torch

        torch.set_num_threads(jobs)
