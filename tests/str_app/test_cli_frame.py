"""The command line as a whole: help, exit codes, one line per failure."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import str_app
from str_app.cli import app, build_app, explain, main
from str_app.cli.printing import json_line, row, write_document
from str_app.errors import StrAppError

VERBS = [
    *("synth", "convert", "select", "train", "average", "evaluate", "evaluate-photos", "export"),
    *("recognize", "read", "bulk", "serve", "models", "study", "doctor", "bench"),
]
ROOT = Path(str_app.__file__).parent.parent


def run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-c", code] if code is not None else ["-m", "str_app"]
    return subprocess.run([sys.executable, *start, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_help_lists_the_verbs_in_order_of_use() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    commands = shown.stdout.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in commands if line.startswith("  ") and line[2] != " "] == VERBS


@pytest.mark.parametrize("group", [[], ["bench"]])
def test_the_list_of_commands_cuts_no_sentence(group: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = CliRunner().invoke(app, [*group, "--help"]).stdout.split("Commands:\n")[1].splitlines()
    assert commands
    assert all(line.endswith(".") and not line.endswith("..") for line in commands if line)


@pytest.mark.parametrize("verb", [*VERBS[:-1], "bench limits", "bench gates"])
def test_every_verb_shows_an_example(verb: str) -> None:
    shown = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert shown.exit_code == 0
    assert f"Example: str-app {verb}" in " ".join(shown.stdout.split())


def test_starting_up_imports_nothing_heavy() -> None:
    code = "import sys, str_app.cli; print([m for m in ('torch', 'cv2', 'numpy', 'fastapi') if m in sys.modules])"
    assert run(code=code).stdout.strip() == "[]"


def test_wrong_usage_is_exit_code_2() -> None:
    assert run("no-such-verb").returncode == 2
    assert CliRunner().invoke(app, ["recognize", "read", "--no-such-option"]).exit_code == 2
    assert CliRunner().invoke(app, []).exit_code == 2


def test_file_names_that_are_no_utf8_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "argv", ["str-app", "--version"])
    with pytest.raises(SystemExit, match="0"):
        main()
    print(os.fsdecode(b"caf\xe9.png"), file=stdout, flush=True)
    assert stdout.buffer.getvalue().endswith(b"caf\xe9.png\n")  # type: ignore[attr-defined]


def test_debug_raises_the_error_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["recognize", "read", "no-such-folder/word.png", "--model", "no-such-model"]
    monkeypatch.setattr(sys, "argv", ["str-app", *arguments])
    with pytest.raises(SystemExit, match="1"):
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert "no-such-model" in line
    for with_debug in (["--debug", *arguments], [*arguments, "--debug"]):
        monkeypatch.setattr(sys, "argv", ["str-app", *with_debug])
        with pytest.raises(StrAppError, match="no-such-model"):
            main()


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (StrAppError("words.txt: no word in it"), 1, "str-app models: words.txt: no word in it"),
        (OSError(28, "No space left on device", "out.json"), 1, "str-app models: No space left on device: out.json"),
        (ZeroDivisionError("oops"), 1, "str-app models: ZeroDivisionError: oops (run again with --debug"),
        (ModuleNotFoundError("x", name="fastapi"), 1, "fastapi is not installed: pip install 'str-app[serve]'"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt(signal.SIGTERM), 143, "interrupted"),
    ],
)
def test_failures_become_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, line: str
) -> None:
    from str_app.cli import models

    def fail() -> list[dict[str, Any]]:
        raise raised

    monkeypatch.setattr(models, "describe_models", fail)
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == code
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_errors_of_our_packages_need_no_prefix() -> None:
    from str_app.datasets.sample import DataError
    from str_app.models.charset import CharsetError

    assert explain(DataError("labels.tsv line 17: no tab")) == "labels.tsv line 17: no tab"
    assert explain(CharsetError("the charset is empty")) == "the charset is empty"
    assert explain(ValueError("odd")).startswith("ValueError: odd (")


def test_debug_lets_the_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    from str_app.cli import models

    monkeypatch.setattr(models, "describe_models", lambda: 1 / 0)
    assert isinstance(CliRunner().invoke(build_app(debug=True), ["models"]).exception, ZeroDivisionError)


def test_other_packages_of_these_names_hide_nothing(tmp_path: Path) -> None:
    """Hugging Face's `datasets`, say: ours is `str_app.datasets`, and takes no other name."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("name = 'theirs'")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import datasets; print(datasets.name)\n"
    code += "from str_app.datasets.sample import Sample; print(Sample.__module__)"
    assert run(code=code).stdout.splitlines() == ["theirs", "str_app.datasets.sample"]


def test_public_names_come_on_first_use() -> None:
    code = "import sys, str_app; print('torch' in sys.modules); from str_app import RefinedLSTM, Reader; print(Reader)"
    assert run(code=code).stdout.splitlines() == ["False", "<class 'str_app.reader.Reader'>"]
    assert {"Reader", "RefinedLSTM", "RefinedMGUCell"} <= set(str_app.__all__) <= set(dir(str_app))
    for name in str_app.__all__:
        assert getattr(str_app, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Writer'"):
        _ = str_app.Writer


def test_version() -> None:
    assert run("--version").stdout == f"str-app {str_app.__version__}\n"


def test_models_are_listed() -> None:
    shown = CliRunner().invoke(app, ["models", "--json"])
    assert shown.exit_code == 0
    described = {entry["name"]: entry for entry in json.loads(shown.stdout)}
    assert set(described) == {"small", "base"}
    assert 0 < described["small"]["parameters"] < described["base"]["parameters"] <= 30e6
    assert 0 < described["small"]["bytes"] + described["small"]["graphs_bytes"] <= 25e6
    assert described["small"]["licence"] == "Apache-2.0"


def test_no_file_name_breaks_a_row_or_a_json_line() -> None:
    assert (
        row("a\tb\nc\rd\\e\x1b[31m\x9b.png", "caf\u00e9", "0.5")
        == "a\\tb\\nc\\rd\\\\e\\x1b[31m\\x9b.png\tcaf\u00e9\t0.5"
    )
    line = json_line({"image": os.fsdecode(b"caf\xe9 \xc3\xa9\n.png")})
    assert json.loads(line.encode()) == {"image": "caf\ufffd \u00e9\n.png"}


def test_json_is_utf_8_whatever_the_terminal_s_encoding(tmp_path: Path) -> None:
    name = tmp_path / "caf\u00e9 \u732b.jpg"
    shutil.copy(ROOT / "samples/images/01.jpg", name)
    shown = {}
    for form in ([], ["--json"]):
        command = [sys.executable, "-m", "str_app", "recognize", *form, str(name)]
        environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        shown[bool(form)] = done.stdout
    assert json.loads(shown[True].decode("utf-8"))["image"] == str(name)
    assert b"/caf\xe9 \\u732b.jpg\t" in shown[False]


def test_documents_may_be_printed_into_a_text_buffer() -> None:
    with redirect_stdout(io.StringIO()) as shown:
        write_document('{"text": "caf\u00e9"}')
    assert shown.getvalue() == '{"text": "caf\u00e9"}\n'


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_closed_pipe_ends_the_command_quietly(form: list[str]) -> None:
    """`str-app recognize … | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "str_app", "recognize", *form, "samples/images/01.jpg"]
    shown = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (shown.returncode, shown.stderr) == (1, "")


def test_no_file_name_commands_the_terminal(tmp_path: Path) -> None:
    name = str(tmp_path / "a\x1b[2J\rb.png")
    Path(name).write_bytes(b"no image")
    for arguments in (["recognize", name], ["read", name], ["recognize", f"{name}/gone"]):
        shown = run(*arguments)
        assert shown.returncode == 1
        assert "a\\x1b[2J\\rb.png" in shown.stderr
        assert "\x1b" not in shown.stderr


@pytest.mark.parametrize("arguments", [["recognize"], ["recognize", "--json"], ["read"], ["read", "--json"]])
def test_standard_output_on_a_full_disk_is_named(arguments: list[str]) -> None:
    picture = "samples/images/01.jpg"
    command = [sys.executable, "-m", "str_app", *arguments, picture]
    with Path("/dev/full").open("w") as full:
        shown = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert shown.returncode == 1
    assert "standard output: No space left on device" in shown.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["read", "--help"], ["study"]])
def test_help_on_a_full_disk_is_an_error_of_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "str_app", *arguments]
        shown = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert shown.returncode == 1
    assert shown.stderr.endswith(": No space left on device\n")
    assert shown.stderr.count("\n") == 1


def test_lone_surrogates_are_escaped_but_bytes_of_names_are_not() -> None:
    code = (
        "import sys; from str_app.cli import main; sys.argv = ['str-app', '--version']\n"
        "try: main()\n"
        r"except SystemExit: print('a\udce9b', 'c\ud800d')"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert shown.stdout.splitlines()[1] == b"a\xe9b c\\ud800d"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no signals like these on Windows")
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_lets_a_command_remove_its_temporary_files(tmp_path: Path, signum: int, code: int) -> None:
    shutil.copytree(ROOT / "samples", tmp_path / "crops")
    stopped = (
        "import signal; from str_app.cli import main; from str_app.datasets.lmdb_writer import LmdbWriter\n"
        f"LmdbWriter.add = lambda *arguments, **options: signal.raise_signal({int(signum)})\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # the tests may run under nohup
        "main()"
    )
    arguments = ["convert", "folder", str(tmp_path / "crops"), "--out", str(tmp_path / "new.lmdb")]
    shown = subprocess.run([sys.executable, "-c", stopped, *arguments], cwd=ROOT, capture_output=True, timeout=60)
    assert shown.returncode == code, shown.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["crops"]
