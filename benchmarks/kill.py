"""Kill encode, decode and train at random moments, and fill the disk: what is left must be whole.

python benchmarks/kill.py [--moments 200] [--seed 0] [--commands encode replace decode train]

Half of the moments are points in time, half are lines of the code that writes files. After each, the output
has to be the old file, or the new one, or absent; nothing else may lie beside it, but for what SIGKILL leaves
until the next run; and the next run has to succeed. Prints a table; the exit code is 1 if anything is not so.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
WRITERS = ("codec/files.py", "cli/paths.py", "codec/training/checkpoints.py", "codec/weights.py")
TINY = ["encoder_width=8", "encoder_hidden=8", "encoder_blocks=1", "decoder_width=8", "decoder_hidden=8"]
TINY += ["decoder_blocks=1", "codes=16", "adversarial=0"]
PATIENCE = 60
SMALL_DISKS = (1, 200, 1_000, 4_000)
"""Bytes that fit onto a full disk."""


@dataclass(frozen=True)
class Command:
    """A command line and the file it writes; `replaces` says that there is an old one."""

    name: str
    arguments: list[str]
    target: str
    replaces: bool = False


def commands() -> list[Command]:
    settings = [word for pair in TINY[:-1] for word in ("--set", pair)]
    train = ["train", "photos", "-m", "vqvae-image", "-o", "run", "--stage", "codec", "--steps", "6"]
    train += ["--batch", "2", "--crop", "32", "--checkpoint-every", "2", "--device", "cpu", *settings]
    quick = ["-m", "ppca-image", "--device", "cpu"]
    return [
        Command("encode", ["encode", "photo.png", *quick], "photo.vqc"),
        Command("replace", ["encode", "photo.png", "-f", *quick], "photo.vqc", True),
        Command("decode", ["decode", "coded.vqc", "-o", "out.png", "-f"], "out.png", True),
        Command("train", train, "run/best.safetensors"),
    ]


def run(arguments: Sequence[str], before: Callable[[], None] = lambda: None) -> int:
    """Start the command line in a child process, whose imports are done already; its process id."""
    child = os.fork()
    if child:
        return child
    code, begun = 1, False
    try:
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        from vqcodec import files
        from vqcodec.cli import main

        sys.argv = ["vqcodec", *arguments]
        # What `main.run` sets up, before the line is counted at which it is killed.
        before()
        begun = True
        main.run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99 if begun else 130
    finally:
        sys.settrace(None)
        files.delete_unfinished()  # as the interpreter does on its way out
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def finish(child: int, kill_at: float | None = None, number: int = 0) -> int:
    """Wait for a child, and send it a signal on the way; its exit code, negative for a signal."""
    started = time.monotonic()
    sent = kill_at is None
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        spent = time.monotonic() - started
        if not sent and kill_at is not None and spent >= kill_at:
            os.kill(child, number)
            sent = True
        if spent > PATIENCE:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 98
        time.sleep(0.001)


class Tracer:
    """Count the lines of the writers, and send a signal to this process at one of them."""

    def __init__(self, at: int | None, number: int, count_file: str = "") -> None:
        self.at, self.number, self.count_file, self.lines = at, number, count_file, 0

    def install(self) -> None:
        """Begin to count."""
        sys.settrace(self.enter)

    def enter(self, frame: FrameType, event: str, _value: object) -> object:
        """Follow the lines of the writers alone."""
        return self.line if frame.f_code.co_filename.endswith(WRITERS) else None

    def line(self, _frame: FrameType, event: str, _value: object) -> object:
        """Count a line."""
        self.lines += 1
        if self.count_file:
            Path(self.count_file).write_text(str(self.lines))
        if self.lines == self.at:
            sys.settrace(None)
            os.kill(os.getpid(), self.number)
        return self.line


def prepare(folder: Path) -> None:
    """Make the inputs, once."""
    import numpy as np
    import PIL.Image
    from vqcodec import pipeline

    y, x = np.mgrid[0:200, 0:240]
    picture = np.stack([(x * y) % 256, (x + y) % 256, (x // 3) % 256], 2).astype(np.uint8)
    PIL.Image.fromarray(picture).save(folder / "photo.png")
    (folder / "photos").mkdir()
    for number in range(4):
        PIL.Image.fromarray(picture[number * 20 :][:48, :48]).save(folder / "photos" / f"{number}.png")
    coded = pipeline.encode(picture[:150], model="ppca-image", device="cpu")
    (folder / "coded.vqc").write_bytes(coded)


class Trial:
    """One command, tried again and again in a folder of its own."""

    def __init__(self, command: Command, inputs: Path) -> None:
        self.command, self.inputs = command, inputs
        self.target = Path(command.target)
        self.clean()
        started = time.monotonic()
        assert finish(run(command.arguments)) == 0, Path("log").read_text()
        self.seconds = time.monotonic() - started
        self.new = self.target.read_bytes()
        self.clean()
        finish(run(command.arguments, Tracer(None, 0, "lines").install))
        self.lines = int(Path("lines").read_text())

    def clean(self) -> None:
        """Lay out the folder as it is before the command."""
        for path in Path().iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for path in self.inputs.iterdir():
            Path(path.name).symlink_to(path)
        if self.command.replaces:
            self.target.write_bytes(b"old")

    def kill(self, rng: random.Random) -> tuple[str, list[str]]:
        """Kill once; how it was done, and what is wrong afterwards."""
        self.clean()
        number = rng.choice(SIGNALS)
        if rng.random() < 0.5:
            tracer = Tracer(rng.randint(1, self.lines), number)
            code = finish(run(self.command.arguments, tracer.install))
        else:
            child = run(self.command.arguments)
            code = finish(child, rng.uniform(0, 1.05 * self.seconds), number)
        wrong = self.judge(number, code)
        return number.name, wrong + self.again()

    def fill(self, size: int) -> list[str]:
        """Let no file grow beyond some bytes; what is wrong afterwards."""
        self.clean()

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        self._log_elsewhere()
        code = finish(run(self.command.arguments, limit))
        wrong = [] if code in (0, 1) and size < len(self.new) else [f"exit code {code} with a full disk"]
        return wrong + self.judge(signal.SIGTERM, 130) + self.again()

    @staticmethod
    def _log_elsewhere() -> None:
        Path("log").symlink_to(os.devnull)

    def judge(self, number: int, code: int) -> list[str]:
        """Return what is wrong after a command has ended before its time."""
        wrong = []
        expected = {0, 130} | {-number}
        if code not in expected:
            wrong.append(f"exit code {code}: {Path('log').read_text()[-300:]}")
        if self.command.name == "train":
            wrong += damaged(Path("run"))
        elif self.target.exists():
            if self.target.read_bytes() not in (self.new, *([b"old"] if self.command.replaces else [])):
                wrong.append("half a file")
        elif self.command.replaces:
            wrong.append("the old file is lost")
        # A process that had no handlers yet is ended by any signal at once.
        if code != -signal.SIGKILL and (left := [*Path().rglob("*.part")]):
            wrong.append(f"left {left[0]}")
        return wrong

    def again(self) -> list[str]:
        """Run the command to its end; what is wrong afterwards."""
        arguments = self.command.arguments
        if self.command.name == "train":
            if any(Path("run/checkpoints").glob("step-*.safetensors")):
                arguments = ["train", "--resume", "run", "--device", "cpu"]
            else:  # killed before the first checkpoint: a new run is begun
                shutil.rmtree("run", ignore_errors=True)
        elif self.target.exists() and "-f" not in arguments:
            arguments = [*arguments, "-f"]
        code = finish(run(arguments))
        if code:
            return [f"the next run ended with {code}: {Path('log').read_text()[-300:]}"]
        wrong = [f"still left {path}" for path in Path().rglob("*.part")]
        if self.command.name == "train":
            return wrong + damaged(Path("run")) + ([] if self.target.exists() else ["no weights"])
        return wrong + ([] if self.target.read_bytes() == self.new else ["the next run wrote something else"])


def damaged(run_folder: Path) -> list[str]:
    """List the files of a run that are not whole."""
    import json

    import PIL.Image
    from safetensors import safe_open

    wrong = []
    for path in run_folder.rglob("*"):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, framework="numpy") as file:
                    [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".png":
                with PIL.Image.open(path) as image:
                    image.load()
        except Exception as error:
            wrong.append(f"{path} is not whole: {error}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=200, help="shared by the commands; train has a tenth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", default=[command.name for command in commands()])
    options = parser.parse_args()
    import torch
    import vqcodec.cli.main  # noqa: F401
    from vqcodec import pipeline, training, weights  # noqa: F401

    torch.set_num_threads(1)
    weights.load("ppca-image", "cpu")
    chosen = [command for command in commands() if command.name in options.commands]
    shares = [0.1 if command.name == "train" else 1.0 for command in chosen]
    rng, failed = random.Random(options.seed), 0
    print("| command | moments | whole | full disks | whole |\n|---|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as inputs, tempfile.TemporaryDirectory() as folder:
        prepare(Path(inputs))
        os.chdir(folder)
        for command, share in zip(chosen, shares, strict=True):
            trial = Trial(command, Path(inputs))
            count = max(1, round(options.moments * share / sum(shares)))
            killed = [trial.kill(rng) for _ in range(count)]
            disks = [trial.fill(size) for size in SMALL_DISKS] if command.name != "train" else []
            bad = [wrong for _, wrong in killed if wrong]
            worse = [wrong for wrong in disks if wrong]
            failed += len(bad) + len(worse)
            row = (command.name, count, count - len(bad), len(disks), len(disks) - len(worse))
            print(f"| {' | '.join(map(str, row))} |", flush=True)
            for name, wrong in [*killed, *(("full disk", wrong) for wrong in disks)]:
                for text in wrong:
                    print(f"{command.name}, {name}: {text}", file=sys.stderr, flush=True)
        os.chdir("/")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
