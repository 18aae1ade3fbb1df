import os
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
import typer
from cli_fakes import bitstream, install, invoke, records, sound_bitstream
from vqcodec.bitstream import container
from vqcodec.cli import main, options

COMMANDS = ["encode", "decode", "info", "models", "evaluate", "sample", "placeholder", "train"]


def run(*arguments, **settings):
    command = [sys.executable, "-m", "vqcodec", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **settings)


def test_bare_call_shows_what_to_type():
    result = invoke()
    assert result.exit_code == 0
    assert result.stdout.startswith("vqcodec ")
    assert "neural image and audio codec" in result.stdout
    assert "vqcodec encode photo.png song.wav      -> photo.vqc, song.vqc" in result.stdout
    assert "vqcodec decode photo.vqc               -> photo.decoded.png" in result.stdout
    assert "Commands: " + "  ".join(COMMANDS) in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command):
    short, long = invoke(command, "-h"), invoke(command, "--help")
    assert short.exit_code == long.exit_code == 0
    assert short.stdout == long.stdout
    assert f"  Examples:\n    vqcodec {command}" in short.stdout


def test_help_says_what_becomes_of_gps():
    assert "GPS" in invoke("encode", "-h").stdout


@pytest.mark.parametrize("arguments", [["-V"], ["--version"], ["encode", "-V"]])
def test_version(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0
    assert result.stdout.endswith(f"(bitstream {container.VERSION})\n")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["encod"], "no such command 'encod'. Did you mean 'encode'", "see 'vqcodec -h'"),
        (["encode"], "no input", "name files or folders, or a list with --files-from"),
        (["encode", "a", "--qualty", "3"], "no such option: --qualty", "see 'vqcodec encode -h'"),
        (["encode", "a", "-q", "x"], "invalid value for '-q' / '--quality'", "see 'vqcodec encode -h'"),
        (["encode", "a", "--color", "pink"], "invalid value for '--color'", "see 'vqcodec encode -h'"),
        (["encode", "a", "--target-size", "x"], "'x' is not a size; write 500000, 40kB or 1MiB", ""),
        (["--quiet", "encode", "a"], "no such option: --quiet", "options come after the command"),
    ],
)
def test_bad_calls_get_two_lines(arguments, message, hint):
    result = invoke(*arguments)
    assert result.exit_code == 2
    what, todo = result.stderr.splitlines()
    assert what.startswith("vqcodec: ")
    assert message in what
    assert todo.startswith(f"  hint: {hint}")
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["encode", "--help"], ["info", "photo.vqc"], ["info", "song.vqc"], ["--version"]],
)
def test_no_network_or_array_library_is_imported(tmp_path, arguments):
    (tmp_path / "photo.vqc").write_bytes(bitstream())
    (tmp_path / "song.vqc").write_bytes(sound_bitstream())
    code = (
        "import atexit, sys\n"
        "heavy = {'torch', 'numpy', 'PIL', 'safetensors', 'rich', 'soundfile', 'soxr'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        f"sys.argv = ['vqcodec', *{arguments!r}]\n"
        "from vqcodec.cli.main import run\nrun()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=tmp_path, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, b"[]\n")
    assert result.stdout


def test_module_runs_as_a_program(tmp_path):
    result = run("info", "gone.vqc", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (
        1,
        b"vqcodec: gone.vqc: no such file\n  hint: check the name\n",
    )


def test_broken_pipe_is_quiet(tmp_path):
    for number in range(200):
        (tmp_path / f"{number}-{'x' * 200}.vqc").write_bytes(bitstream())
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "vqcodec", "info", "-r", "."]
    result = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, timeout=60, check=False
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (1, b"")


needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


@needs_full
@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "photo.vqc"],
        ["info", "photo.vqc", "--json"],
        ["info", "--json", "gone.vqc"],
        ["info", "-r", "many"],
        ["models"],
        ["models", "--json"],
        ["encode", "photo.png", "--dry-run", "-f"],
        ["encode", "photo.png", "--json", "-f"],
        ["decode", "stored.vqc", "-o", "-"],
        ["evaluate", "photo.png", "-m", "ppca-image"],
        ["encode", "--help"],
        ["--version"],
        [],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("closed", [False, True], ids=["full", "broken pipe"])
def test_stdout_that_cannot_be_written_is_told_in_two_lines(tmp_path, arguments, closed):
    (tmp_path / "many").mkdir()
    for number in range(200 if "many" in arguments else 0):
        (tmp_path / f"many/{number}-{'x' * 200}.vqc").write_bytes(bitstream())
    (tmp_path / "photo.vqc").write_bytes(bitstream())
    PIL.Image.new("RGB", (16, 16), "red").save(tmp_path / "photo.png")
    if "stored.vqc" in arguments:
        golden = Path(__file__).parent / "golden" / "ppca-image.vqc"
        (tmp_path / "stored.vqc").write_bytes(golden.read_bytes())
    if closed:
        read, out = os.pipe()
        os.close(read)
    else:
        out = os.open("/dev/full", os.O_WRONLY)
    command = [sys.executable, "-m", "vqcodec", *arguments]
    result = subprocess.run(
        command, stdout=out, stderr=subprocess.PIPE, cwd=tmp_path, timeout=60, check=False
    )
    os.close(out)
    told = result.stderr.decode()
    assert result.returncode == 1, told
    assert "Traceback" not in told and "Exception ignored" not in told
    if closed:
        assert "stdout" not in told
    else:
        assert (
            "vqcodec: cannot write to stdout: no space left\n  hint: free some space, or write elsewhere\n"
            in told
        )


@needs_full
def test_full_or_closed_streams_of_messages_do_not_stop_the_work(tmp_path):
    (tmp_path / "photo.vqc").write_bytes(bitstream())
    for redirections, code in (("2>/dev/full", 1), ("2>&-", 1), (">&-", 1)):
        shell = f"{sys.executable} -m vqcodec info gone.vqc photo.vqc {redirections}"
        result = subprocess.run(["sh", "-c", shell], capture_output=True, cwd=tmp_path, check=False)
        assert result.returncode == code
        assert b"Traceback" not in result.stderr
        assert (b"fake-image" in result.stdout) == (redirections != ">&-")


@pytest.mark.parametrize("name", ["a\nb", "a\u202eb", "a\x1b[31mb", "a\u2028b", "a\x9bb", "a\u2066b"])
def test_names_never_reach_the_terminal_raw(monkeypatch, tmp_path, name):
    install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.vqc").write_bytes(bitstream())
    Path(f"{name}.png").write_bytes(b"DEEP")
    Path(f"{name} bad.png").write_bytes(b"BAD")
    Path(f"{name} bug.png").write_bytes(b"BUG")
    Path(f"{name}.txt").touch()
    Path(f"{name} folder").mkdir()
    os.mkfifo(f"{name} pipe.png")
    for arguments in (
        ["info", f"{name}.vqc", f"{name}.vqx", f"{name} folder"],
        ["info", "-r", "."],
        ["encode", "-r", ".", "-o", f"{name} new/", "-vv"],
        ["encode", f"{name}.png", "-vv"],
        ["encode", f"{name}.png", "--dry-run"],
        ["encode", f"{name}.png", "-m", name],
        ["encode", f"{name}.png", "-o", f"{name} gone/x"],
        ["encode", "x", f"--{name}"],
        ["encode", "x", "-q", name],
        ["encode", "x", "--target-size", name],
        [name],
        ["decode", f"{name}.vqc", "-vv"],
        ["decode", f"{name}.vqc", "-o", f"x.{name}"],
        ["decode", "-t", f"{name}.png", "-vv"],
        ["evaluate", "."],
        ["evaluate", f"{name}.png", "-o", f"{name}/{name}.csv"],
        ["models", "-m", name],
        ["train", name, "-m", "fake-image"],
        ["train", ".", "-m", "fake-image", "--set", name],
        ["sample", "--continue", f"{name}.gone"],
        ["sample", "--size", name],
    ):
        result = invoke(*arguments)
        for text in (result.stdout, result.stderr):
            assert all(c.isprintable() or c == "\n" for c in text), (arguments, text)
            # A traceback has lines of its own.
            assert name not in text or ("-vv" in arguments and name == "a\nb")
    [record, _] = records(invoke("info", f"{name}.vqc", "--json"))
    assert record["input"] == f"{name}.vqc"


def test_undecodable_names_do_not_end_the_program(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.vqc"
    with open(name, "wb") as file:
        file.write(bitstream())
    result = run("info", name.decode("utf-8", "surrogateescape"), env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert result.returncode == 0, result.stderr
    assert b"\\udcff.vqc" in result.stdout


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("ctrl_c", ["default_int_handler", "SIG_IGN"])
def test_termination_is_an_interruption(tmp_path, ctrl_c, signal):
    """Also where Ctrl-C is ignored, as in programs that a script puts into the background."""
    code = (
        "import os, signal, sys, time\nfrom vqcodec.cli import main\n"
        "import vqcodec.cli.info as info\n"
        f"def stop(header): os.kill(os.getpid(), signal.{signal}); time.sleep(10)\n"
        "info.describe = stop\n"
        "sys.argv = ['vqcodec', 'info', 'photo.vqc']\nmain.run()\n"
    )
    (tmp_path / "photo.vqc").write_bytes(bitstream())
    # Under nohup the tests inherit an ignored SIGHUP.
    handlers = f"import signal as s; s.signal(s.SIGHUP, s.SIG_DFL); s.signal(s.SIGINT, s.{ctrl_c})"
    result = subprocess.run(
        [sys.executable, "-c", f"{handlers}\n{code}"],
        capture_output=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (130, b"")


def test_interruptions_while_commands_are_built_are_quiet(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "app", interrupted)
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        main.run()
    assert caught.value.code == 130


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path):
    """As under nohup."""
    code = (
        "import os, signal, sys\nfrom vqcodec.cli import main\n"
        "import vqcodec.cli.info as info\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "describe = info.describe\n"
        "def go_on(header): os.kill(os.getpid(), signal.SIGHUP); return describe(header)\n"
        "info.describe = go_on\n"
        "sys.argv = ['vqcodec', 'info', 'photo.vqc']\nmain.run()\n"
    )
    (tmp_path / "photo.vqc").write_bytes(bitstream())
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("text", "size"),
    [("500", 500), ("40kB", 40_000), ("40 KB", 40_000), ("1MiB", 2**20), ("1.5k", 1500), ("2gib", 2**31)],
)
def test_sizes(text, size):
    assert options.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "kB", "-1", "1ib", "40 kilo", "0", "1e3", "nan", "1MB2"])
def test_wrong_sizes(text):
    with pytest.raises(typer.BadParameter, match="size|byte"):
        options.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("20m", 1200),
        ("20 min", 1200),
        ("6h", 21600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1d", 86400),
    ],
)
def test_durations(text, seconds):
    assert options.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "0s", "-5m", "5 parsecs", "1h30", "5months"])
def test_wrong_durations(text):
    with pytest.raises(typer.BadParameter, match="duration|zero"):
        options.parse_duration(text)


@pytest.mark.parametrize(("text", "pixels"), [("1000", 1000), ("200M", 200_000_000), ("1.5MP", 1_500_000)])
def test_pixels(text, pixels):
    assert options.parse_pixels(text) == pixels


def test_wrong_pixels():
    with pytest.raises(typer.BadParameter):
        options.parse_pixels("many")


def test_every_option_is_named_in_a_test():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_cli_*.py"))
    group = typer.main.get_command(__import__("vqcodec.cli.main", fromlist=["app"]).app)
    for name, command in group.commands.items():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert any(f'"{option}"' in tests for option in parameter.opts), (name, parameter.opts)


def test_color(monkeypatch, tmp_path):
    install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert "\x1b[" in invoke("info", "gone.vqc", "--color", "always").stderr
    assert "\x1b[" not in invoke("info", "gone.vqc", "--color", "never").stderr
    assert "\x1b[" not in invoke("info", "gone.vqc", env={"FORCE_COLOR": "1"}).stderr
