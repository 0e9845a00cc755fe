"""The command as a process: entry points, missing packages, interruptions, errors."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

import effkernels
from command_line import Run
from effkernels.cli import table
from effkernels.data import sample_pictures
from tiers import slow_unless

MODULE = [sys.executable, "-m", "effkernels.cli"]


def command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a process outside of the source tree."""
    return subprocess.run(
        arguments,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


SCRIPT = Path(sys.executable).with_name("effkernels")


def test_the_console_script_is_installed() -> None:
    assert SCRIPT.exists(), "the package is installed without its console script"


@pytest.mark.usefixtures("lite0_weights")
def test_the_console_script_names_the_espresso_and_plain_ascii_is_enough(tmp_path: Path) -> None:
    with sample_pictures() as (_, coffee):
        result = command(
            *(str(SCRIPT), "predict", str(coffee)), cwd=tmp_path, PYTHONIOENCODING="ascii"
        )
    assert (result.returncode, result.stderr) == (0, "")
    _, first, *_ = result.stdout.splitlines()
    assert first.split()[-1] == "espresso"
    assert "#" in first


def test_an_error_is_one_line_without_a_traceback_unless_requested(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("predict", "nowhere").error == "effkernels: no such file or folder: 'nowhere'"
    monkeypatch.setenv("EFFKERNELS_TRACEBACK", "1")
    result = run("predict", "nowhere")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("effkernels: no such file or folder: 'nowhere'\n")


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_its_packages_it_names_the_extra(tmp_path: Path, package: str) -> None:
    blocked = f"import sys; sys.modules[{package!r}] = None; import effkernels_cli as c; c.main()"
    result = command(sys.executable, "-c", blocked, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f'effkernels: the command line needs {package}: pip install "effkernels[cli]"\n'
    )


def test_without_pillow_everything_but_pictures_works(tmp_path: Path, seven_classes: Path) -> None:
    blocked = (
        "import sys; sys.modules['PIL'] = None; import effkernels_cli as c\n"
        "predict = sys.argv\n"
        "for sys.argv in (['effkernels', 'table'], predict):\n"
        "    try:\n"
        "        c.main()\n"
        "    except SystemExit as end:\n"
        "        print('ended with', end.code or 0)\n"
    )
    (tmp_path / "picture.png").touch()
    arguments = ["predict", "picture.png", "--weights", str(seven_classes)]
    result = command(sys.executable, "-c", blocked, *arguments, cwd=tmp_path)
    assert "EfficientNet-B0" in result.stdout
    assert result.stdout.splitlines()[-2:] == ["ended with 0", "ended with 2"]
    assert len(result.stderr.splitlines()) == 1
    assert 'pip install "effkernels[cli]"' in result.stderr


def test_importing_the_entry_point_imports_no_packages(tmp_path: Path) -> None:
    code = (
        "import sys, effkernels_cli; print(*{'typer', 'rich', 'PIL', 'torch'} & set(sys.modules))"
    )
    assert command(sys.executable, "-c", code, cwd=tmp_path).stdout.split() == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["predict", "--help"], ["--version"], ["nonsense"]]
)
def test_help_and_wrong_usage_do_not_wait_for_torch(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import sys, effkernels_cli as c\ntry:\n c.main()\nfinally:\n print('torch' in sys.modules)"
    )
    result = command(sys.executable, "-c", code, *arguments, cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == "False"
    if arguments == ["--version"]:
        assert result.stdout == f"effkernels {effkernels.__version__}\nFalse\n"


def test_a_reader_that_closes_the_pipe_is_not_an_error(tmp_path: Path) -> None:
    # A shell pipeline would return the last command's status, so the pipe is closed here instead.
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [SCRIPT, "--help"], cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, timeout=240
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("watched", slow_unless(["stderr"], ["stdout and stderr", "stderr"]))
def test_many_pictures_have_a_progress_bar_in_a_terminal(
    tmp_path: Path, cat: Image.Image, seven_classes: Path, watched: str
) -> None:
    for number in range(9):
        cat.resize((40, 30)).save(tmp_path / f"{number}.png")
    ours, theirs = os.openpty()
    with tempfile.TemporaryFile() as stdout:
        process = subprocess.Popen(
            [*MODULE, "predict", ".", "--weights", str(seven_classes), "--batch-size", "3"],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "80", "TERM": "xterm"},
            stdout=theirs if watched == "stdout and stderr" else stdout,
            stderr=theirs,
        )
        os.close(theirs)
        shown = _read_terminal(ours)
        assert process.wait(timeout=240) == 0
        stdout.seek(0)
        piped = stdout.read().decode()
    assert "9/9" in shown
    results = shown if watched == "stdout and stderr" else piped
    assert all(f"{number}.png" in results for number in range(9))
    assert "9/9" not in piped
    assert "\x1b" not in piped


def _read_terminal(descriptor: int) -> str:
    """Everything that a process writes to its terminal until it ends."""
    chunks: list[bytes] = []
    with os.fdopen(descriptor, "rb", buffering=0) as terminal:
        while True:
            try:
                chunk = terminal.read(65536)
            except OSError:  # how Linux reports that the other side is closed
                chunk = b""
            if not chunk:
                return b"".join(chunks).decode(errors="replace")
            chunks.append(chunk)


def test_no_arguments_show_the_help(run: Run) -> None:
    result = run()
    assert result.exit_code == 0
    for name in (
        "demo",
        "predict",
        "cam",
        "train",
        "evaluate",
        "table",
        "info",
        "explain",
        "convert",
    ):
        assert f"\n  {name} " in result.stdout
        assert run(name, "--help").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["table", "--nonsense"], "--nonsense"),
        (["table", "extra"], "extra"),
    ],
)
def test_wrong_usage_is_one_line(run: Run, arguments: list[str], said: str) -> None:
    assert said in run(*arguments).error


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (
            RuntimeError("CUDA error:\n  out of  memory"),
            2,
            "effkernels: CUDA error: out of memory\n",
        ),
        (NotImplementedError(), 2, "effkernels: NotImplementedError\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_expected_exceptions_are_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int, said: str
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(table, "table_rows", fail)
    result = run("table")
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", said)


def test_a_bug_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(table, "table_rows", fail)
    with pytest.raises(KeyError, match="a bug"):
        run("table")
