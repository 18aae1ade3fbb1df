"""Name the inputs of a command, and turn them into jobs while they are found."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from vqcodec.errors import MediaError, UsageError, VqcodecError

from . import paths, tars
from .listing import STANDARD, Found, Input, find_each, find_listed
from .names import real_name
from .paths import Job
from .remote import RemotePath, path_of

Fail = Callable[[str, VqcodecError], None]


@dataclass(frozen=True)
class Sources:
    """What a command reads.

    Attributes:
        arguments: files, folders, tars, "-" for stdin.
        recursive: enter folders.
        files_from: a list of more files; "-" is stdin.
        null: the names in the list end in zero bytes instead of line breaks.
        suffixes: of the files to take from folders and tars.
        what: name of these files in messages.
        silent: suffixes of files that are skipped without a message.
    """

    arguments: Sequence[str]
    recursive: bool
    files_from: str | None
    null: bool
    suffixes: Collection[str]
    what: str
    silent: Collection[str] = ()

    def check(self, output: str | None) -> None:
        """Refuse arguments that do not go together.

        Raises:
            UsageError: no input, stdin named twice, or an output that is not one for these inputs.
        """
        if not self.arguments and self.files_from is None:
            raise UsageError("no input", "name files or folders, or a list with --files-from")
        if self.null and self.files_from is None:
            raise UsageError("-0 belongs to --files-from", "name a list with --files-from, or leave out -0")
        if self.files_from == STANDARD and STANDARD in self.arguments:
            raise UsageError("- is given twice", "stdin can be read only once")
        if self.files_from not in (None, STANDARD) and not Path(str(self.files_from)).is_file():
            raise UsageError(f"no file {self.files_from} to read names from", "name a list, or - for stdin")
        for name in [*self.arguments, output or ""]:
            if tars.is_tar(name) and isinstance(path_of(name), RemotePath):
                raise UsageError(f"{name}: tars are read and written here only", "copy it to a local disk")
        if output is None and self.several and any(map(tars.is_tar, self.arguments)):
            raise UsageError("a tar and other inputs need an output", "name a folder/ or a .tar with -o")
        if output is not None and not tars.is_tar(output) and not paths.is_folder(output):
            folders = self.files_from is not None or any(
                path_of(name).is_dir() or tars.is_tar(name) for name in self.arguments
            )
            paths.check_named_output(output, len(self.arguments) or 1, folders)

    @property
    def several(self) -> bool:
        """Whether there may be more than one file, of more than one kind."""
        return len(self.arguments) > 1 or self.streamed

    @property
    def streamed(self) -> bool:
        """Whether the number of inputs is not known before they have been found."""
        return self.files_from is not None or any(
            path_of(name).is_dir() or tars.is_tar(name) for name in self.arguments
        )

    def output(self, given: str | None, suffix: str) -> str | None:
        """Return the -o option, or where the members of a tar go without it: to a tar in its folder.

        Args:
            given: the option.
            suffix: of the new tar, in front of its ".tar".
        """
        if given is not None or len(self.arguments) != 1 or not tars.is_tar(self.arguments[0]):
            return given
        stem = Path(self.arguments[0]).with_suffix("")
        return str(stem.with_suffix("") if stem.suffix == paths.BITSTREAM else stem) + suffix + tars.TAR

    def counter(self, output: str | None) -> Callable[[], int] | None:
        """Return a function that counts the inputs; None where they can be read once only."""
        if self.files_from == STANDARD:
            return None
        return lambda: sum(len(found.inputs) for found in self.found(output))

    def found(self, output: str | None) -> Iterator[Found]:
        """Find the inputs, folder by folder."""
        archives = [Path(name) for name in self.arguments if tars.is_tar(name) and Path(name).is_file()]
        others = [name for name in self.arguments if path_of(name) not in archives]
        yield from find_each(
            others,
            recursive=self.recursive,
            suffixes=self.suffixes,
            what=self.what,
            silent=self.silent,
            together=output is not None,
        )
        for archive in archives:
            yield from tars.members(archive, self.suffixes, self.silent, self.what)
        if self.files_from is not None:
            standard = self.files_from == STANDARD
            separator = b"\0" if self.null else b"\n"
            with nullcontext(sys.stdin.buffer) if standard else open(self.files_from, "rb") as file:
                yield from find_listed(file, separator=separator, to_folder=output is not None)

    def inputs(self, report: Callable[[Found], None]) -> Iterator[Job]:
        """Return jobs without outputs; `report` is called with what was found."""
        for found in self.found(None):
            report(found)
            yield from (Job(source, None) for source in found.inputs)

    def jobs(
        self,
        output: str | None,
        suffix: Callable[[Input], str],
        report: Callable[[Found], None],
        fail: Fail,
        known: Collection[str] = paths.IMAGES | paths.AUDIO | paths.SETS,
    ) -> Iterator[Job]:
        """Assign an output to each input, as `paths.plan` does for those that are found together.

        Args:
            output: the -o option.
            suffix: as in `paths.plan`.
            report: called with what was found, before its jobs.
            fail: called with the name of an input that has no output of its own.
            known: suffixes that are replaced.

        Raises:
            UsageError: as in `paths.plan`, for the inputs that are named.
        """
        packed = tars.is_tar(output)
        named: set[str] | None = None
        for found in self.found(output):
            if named is None:  # before any message: what is named must have an output
                jobs = paths.plan(found.inputs, output, suffix, len(self.arguments), known, packed=packed)
                report(found)
                # A named file that is met again in its folder has been done; below -o it has two outputs.
                named = {real_name(source.path) for source in found.inputs if output is None}
                yield from jobs
                continue
            report(found)
            try:
                jobs = paths.plan(found.inputs, output, suffix, 1, known, packed=packed)
            except UsageError:
                jobs = [*self._one_by_one(found.inputs, output, suffix, fail, known)]
            yield from (job for job in jobs if job.source.span or real_name(job.source.path) not in named)

    @staticmethod
    def _one_by_one(
        inputs: Sequence[Input],
        output: str | None,
        suffix: Callable[[Input], str],
        fail: Fail,
        known: Collection[str],
    ) -> Iterator[Job]:
        """Plan inputs whose outputs clash: the first one keeps the name, the others fail."""
        taken: set[str] = set()
        for source in inputs:
            try:
                (job,) = paths.plan([source], output, suffix, 1, known)
                if real_name(job.output) in taken:
                    raise UsageError(f"another input would write {job.output} too", "use two folders with -o")
            except UsageError as error:
                fail(source.name, MediaError(error.message, error.hint))
                continue
            taken.add(real_name(job.output))
            yield job
