"""`benchmarks/gpu.sh`, run with stand-ins for its tools: what it starts must be what those tools take."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ROOT
from benchmarks.cases import suites
from benchmarks.harness.device import Device
from benchmarks.run import _parser

SCRIPT = ROOT / "benchmarks" / "gpu.sh"
STAGES = [
    "build",
    "tests_cuda",
    "tests_triton",
    "layers",
    "networks",
    "memcheck",
    "racecheck",
    "expanding",
    "growth",
    "memory",
    "full_b0",
    "full_b4",
    "full_b7",
    "full_b2",
    "full_b5",
    "full_lite0",
    "float16",
    "memcheck_triton",
    "racecheck_triton",
    "sweep",
]
# Without the folder where it starts, which has the package's source.
PYTEST = "import sys; sys.path = [p for p in sys.path if p]; import pytest; sys.exit(pytest.main())"
STAND_IN = r"""#!/bin/bash
printf '%q ' "$(basename "$0")" "$@" >>"$CALLS"; echo >>"$CALLS"
env | sed -n "s/^\(EFFKERNELS_TEST\|PYTORCH_\)/$(basename "$0") &/p" >>"$CALLS.environment"
[[ "$*" == *"$FAILING"* && -n $FAILING ]] && { echo "out of toys"; exit 3; }
[[ $1 == -c ]] && echo 9.0
exit 0
"""


def run(folder: Path, *stages: str, failing: str = "") -> tuple[int, str, list[list[str]]]:
    tools = folder / "tools"
    tools.mkdir()
    for name in ("python", "pip", "pytest", "compute-sanitizer"):
        (tools / name).write_text(STAND_IN)
        (tools / name).chmod(0o755)
    calls = folder / "calls"
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "FAILING": failing,
    }
    done = subprocess.run(
        [str(SCRIPT), str(folder / "out"), *stages], env=environment, capture_output=True, text=True
    )
    lines = calls.read_text().splitlines() if calls.exists() else []
    started = [shlex.split(line) for line in lines if "find_spec" not in line]
    return done.returncode, done.stdout + done.stderr, started


def environment_of(folder: Path) -> list[str]:
    """ "tool NAME=VALUE" of what the tools were started with."""
    return (folder / "calls.environment").read_text().splitlines()


def test_every_stage_starts_what_there_is(tmp_path: Path) -> None:
    code, said, calls = run(tmp_path)
    assert code == 0, said
    ended = (tmp_path / "out" / "stages.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in ended] == STAGES
    assert all(": exit 0, " in line for line in ended)
    reports = [call[3:] for call in calls if call[:3] == ["python", "-m", "benchmarks.report"]]
    parsed = [_parser().parse_args(arguments) for arguments in reports]
    assert all((p.device, p.resume) == ("cuda", True) for p in parsed)
    folders = {(p.dtype, p.output.name) for p in parsed}
    assert folders == {("bfloat16", "report"), ("bfloat16", "sweep"), ("float16", "report-fp16")}
    everything = suites(full=True, growth=True, device=Device("cuda", "bfloat16"))
    assert {name for p in parsed for name in p.suite} == {suite.name for suite in everything}
    (networks,) = (suite for suite in everything if suite.name == "networks")
    full = [p.only for p in parsed if p.full and p.suite == ["networks"]]
    for case in networks.cases:
        assert sum(only in case.key for only in full) == 1, case.key
    sanitized = [call for call in calls if call[0] == "compute-sanitizer"]
    assert [call[2] for call in sanitized] == ["memcheck", "racecheck"] * 2
    for call in sanitized:
        files = [word for word in call if word.startswith("tests/")]
        assert files
        assert all((ROOT / name).is_file() for name in files)


UNCACHED = "PYTORCH_NO_CUDA_MEMORY_CACHING=1"


@pytest.mark.parametrize(
    ("stage", "uncached"),
    [
        ("memcheck", True),
        ("memcheck_triton", True),
        ("racecheck", False),
        ("racecheck_triton", False),
    ],
)
def test_bounds_are_those_of_tensors(tmp_path: Path, stage: str, uncached: bool) -> None:
    """memcheck knows what the driver gave out: PyTorch must not cut tensors out of it."""
    run(tmp_path, stage)
    assert (f"compute-sanitizer {UNCACHED}" in environment_of(tmp_path)) == uncached


def expected(folder: Path) -> tuple[str, int]:
    """The modules and the number of passed tests without which pytest fails."""
    said = dict(line.split()[1].split("=", 1) for line in environment_of(folder))
    return said["EFFKERNELS_TEST_EXPECT"], int(said["EFFKERNELS_TEST_MINIMUM"])


@pytest.mark.parametrize("stage", [name for name in STAGES if "tests" in name or "check" in name])
def test_tests_that_did_not_run_are_no_success(tmp_path: Path, stage: str) -> None:
    _, _, (call,) = run(tmp_path, stage)
    assert "pytest -m gpu" in " ".join(call)
    modules, minimum = expected(tmp_path)
    assert modules == "_C,_C_cuda"
    assert minimum >= 50


@pytest.mark.parametrize("stage", ["memcheck", "memcheck_triton"])
def test_a_sanitizers_tests_are_there(tmp_path: Path, stage: str) -> None:
    _, _, (call,) = run(tmp_path, stage)
    arguments = call[call.index("pytest") + 1 :]
    found = subprocess.run(
        [sys.executable, "-c", PYTEST, "--collect-only", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    collected = re.search(r"^(\d+)/\d+ tests collected", found.stdout, re.MULTILINE)
    assert collected is not None, found
    assert int(collected[1]) / 2 < expected(tmp_path)[1] <= int(collected[1])


def test_a_stage_that_fails_is_told_and_the_next_goes_on(tmp_path: Path) -> None:
    code, said, calls = run(tmp_path, "tests_cuda", "layers", failing="gpu")
    assert code != 0
    assert "tests_cuda: exit 3, 0 s: out of toys" in said
    assert "layers: exit 0" in said
    assert (tmp_path / "out" / "tests_cuda.log").read_text() == "out of toys\n"
    assert len(calls) == 2


def test_the_tools_beside_the_python_that_has_pytorch_are_used(tmp_path: Path) -> None:
    other, own = tmp_path / "other", tmp_path / "own"
    for folder in (other, own):
        folder.mkdir()
        for name in ("python", "pytest"):
            (folder / name).write_text(
                f"""#!/bin/bash\n[[ $1 == -c ]] && exit 1\necho {folder.name}\n"""
            )
            (folder / name).chmod(0o755)
    (other / "python3").write_text(f"#!/bin/bash\necho {own}\n")
    (other / "python3").chmod(0o755)
    path = {**os.environ, "PATH": f"{other}:{os.environ['PATH']}"}
    subprocess.run([str(SCRIPT), str(tmp_path / "out"), "tests_cuda"], env=path, check=True)
    assert (tmp_path / "out" / "tests_cuda.log").read_text() == "own\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"]], ids=["none", "no such stage"])
def test_what_it_does_not_know_it_does_not_start(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [str(SCRIPT), *([str(tmp_path)] if arguments else []), *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert ("FOLDER" if not arguments else "no stage nonsense") in done.stdout + done.stderr
