"""Report and count what becomes of many files; a failure of one does not end the others."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vqcodec.bitstream.geometry import AudioGeometry, Geometry, SetGeometry

from .console import Console, Failure, clock_text, size_text, time_text
from .listing import EXTRAS
from .outcome import Fields as Fields
from .outcome import Outcome
from .paths import Found, Input, Job, taken_each
from .tars import TarWriter

NAME_IT = "a set of pictures; name the file itself to encode it"
EXTRA_HINT = "pip install 'vqcodec[formats]'"


class Batch:
    """Count and report the result of each input.

    Attributes:
        code: the exit code so far.
        done: jobs that are done or were skipped.
        alone: whether there is one input alone, whose line is always printed.
        tar: where packed outputs go.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.code = self.done = 0
        self.alone = False
        self.tar: TarWriter | None = None
        self.counts = {"ok": 0, "failed": 0, "skipped": 0}
        self.bytes_in = self.bytes_out = 0
        self.pixels, self.audio_seconds = 0, 0.0
        self._said: set[str] = set()
        self._started = time.perf_counter()
        console.last = lambda interrupted: self.finish(interrupted=interrupted)

    def report_found(self, found: Found, foreign: str, sets: bool = False) -> None:
        """Report what `find` could not use.

        Args:
            found: failed arguments, and files of another kind in folders.
            foreign: why these are skipped.
            sets: whether sets of small pictures are inputs where they are named.
        """
        for name, error in found.failed:
            self.fail(name, error)
        for name in found.foreign:
            package = EXTRAS.get(Path(name).suffix.lower())
            why = NAME_IT if sets and _holds_set(name) else foreign
            self.skip(name, f"needs the extra formats: {EXTRA_HINT}" if package else why)
        for name, why in found.passed:
            self.skip(name, why)

    def skip(self, name: str, why: str) -> None:
        """Report and count a file that is not an input."""
        self.counts["skipped"] += 1
        self.console.note(f"{name}: skipped, {why}")
        self.console.record(type="file", input=name, status="skipped", reason=why)

    def skip_existing(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Yield the jobs whose output does not exist; count and report the others."""
        for job, exists in taken_each(jobs):
            if not exists:
                yield job
                continue
            self.counts["skipped"] += 1
            self.done += 1
            self.console.note(f"{job.source.name}: skipped, {job.output} exists", level=1)
            self.console.record(type="file", input=job.source.name, output=str(job.output), status="skipped")

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
        outcome = Outcome(source.name)
        with outcome.attempt():
            outcome.fields = work()
        return self._count(outcome)

    def settle(self, job: Job, outcome: Outcome) -> None:
        """Report and count the outcome of a job; write its output if that goes into a tar."""
        self.done += 1
        if outcome.data is not None and job.output is not None and self.tar is not None:
            self.tar.add(job.output, outcome.data, outcome.mtime)
            outcome.data = None
        record = self._count(outcome)
        if record is not None and not self.console.json:
            alone = self.alone or {"psnr_db", "si_sdr_db"} & record.keys()
            self.console.note(_file_line(record), level=0 if alone else 1)

    def _count(self, outcome: Outcome) -> Fields | None:
        for text, level in outcome.notes:
            self.console.note(text, level)
        for text in outcome.warnings:
            self.console.warning(outcome.name, text)
        for text in outcome.general:
            if text not in self._said:  # it is the same for all
                self._said.add(text)
                self.console.warning(None, text)
        if outcome.failure is not None:
            self.fail(outcome.name, outcome.failure)
            return None
        fields = outcome.fields
        if outcome.damaged or fields.get("status") == "damaged":
            self.code = max(self.code, 1)
            self.counts["failed"] += 1
            fields["status"] = "damaged"
        else:
            self.counts["ok"] += 1
        self.bytes_in += fields.get("bytes_in", 0)
        self.bytes_out += fields.get("bytes_out", 0)
        if {"bpp", "width"} <= fields.keys():
            self.pixels += fields["width"] * fields["height"]
        if {"kbps", "audio_seconds"} <= fields.keys():
            self.audio_seconds += fields["audio_seconds"]
        record: Fields = {"type": "file", "input": outcome.name, "status": "ok"} | fields
        record |= {"seconds": round(outcome.seconds, 3)}
        if messages := outcome.warnings + outcome.general:
            record["warnings"] = messages
        self.console.record(**record)
        return record

    def fail(self, name: str, error: Exception | Failure) -> None:
        """Report that one input failed."""
        failure = error if isinstance(error, Failure) else Failure.of(error)
        self.counts["failed"] += 1
        self.code = max(self.code, failure.code)
        self.console.fail(name, failure)
        self.console.record(type="file", input=name, status="error", error=failure.message, hint=failure.hint)

    def finish(self, *, sizes: bool = True, interrupted: bool = False) -> int:
        """Print a summary if there was more than one input; return the exit code."""
        self.console.last = lambda interrupted: None
        total = sum(self.counts.values())
        summary: Fields = {"type": "summary", **self.counts}
        if sizes:
            summary |= {"bytes_in": self.bytes_in, "bytes_out": self.bytes_out}
        if interrupted:
            summary |= {"interrupted": True}
        self.console.record(**summary)
        if not self.console.json and total > (not interrupted) and (sizes or interrupted):
            self.console.note("interrupted: " * interrupted + self._line(total, interrupted=interrupted))
        return self.code

    def _line(self, total: int, *, interrupted: bool) -> str:
        whole = self.counts["ok"] == total or interrupted
        parts = [f"{self.counts['ok']}{'' if whole else f' of {total}'} files"]
        for what in ("failed", "skipped"):
            if self.counts[what]:
                parts[0] += f", {self.counts[what]} {what}"
        if self.bytes_out:
            rate = rate_text(self.bytes_out, self.pixels, self.audio_seconds)
            compressed = bool(self.pixels or self.audio_seconds)
            parts.append(sizes_text(self.bytes_in, self.bytes_out, rate, compressed=compressed))
        parts.append(time_text(time.perf_counter() - self._started))
        return "  ".join(parts)


def _holds_set(name: str) -> bool:
    from vqcodec.media import SET_NAMES  # waits for numpy

    return SET_NAMES.search(name) is not None


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


def extent(geometry: Geometry) -> Fields:
    """Return the size fields of a record: those of an image, audio, or a set of pictures."""
    if isinstance(geometry, AudioGeometry):
        return {
            "audio_seconds": round(geometry.seconds, 3),
            "rate": geometry.rate,
            "channels": geometry.channels,
        }
    sides: Fields = {"width": geometry.width, "height": geometry.height}
    return sides | ({"pictures": geometry.count} if isinstance(geometry, SetGeometry) else {})


def _file_line(record: Fields) -> str:
    target = f" -> {record['output']}" if "output" in record else ""
    parts = [f"{record['input']}{target}"]
    compressed = "bpp" in record or "kbps" in record
    if "bytes_in" in record and "bytes_out" in record:
        rate = f"{record['bpp']:.2f} bpp" if "bpp" in record else ""
        rate = f"{record['kbps']:.2f} kbit/s" if "kbps" in record else rate
        parts.append(sizes_text(record["bytes_in"], record["bytes_out"], rate, compressed=compressed))
    # SI-SDR does not see a factor.
    alike = {"psnr_db": "no loss", "si_sdr_db": "the same up to a factor (SI-SDR infinite)"}
    for key, name in (("psnr_db", ""), ("si_sdr_db", "SI-SDR ")):
        if key in record:
            loss = alike[key] if record[key] == math.inf else f"{name}{record[key]:.2f} dB"
            parts.append(f"verified, {loss}")
    if not compressed and "width" in record:
        parts.append(f"{record['width']} x {record['height']}")
    if not compressed and "audio_seconds" in record:
        parts.append(clock_text(record["audio_seconds"]))
    if record["status"] != "ok":
        parts.append(str(record["status"]))
    parts.append(time_text(record["seconds"]))
    return "  ".join(parts)


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
