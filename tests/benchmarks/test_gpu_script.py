"""`benchmarks/gpu.sh`, run with a Python that only records its arguments: each recorded command must exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from benchmarks import ROOT, profiles
from benchmarks.cases import suites
from benchmarks.harness.device import Device
from benchmarks.run import _parser

SCRIPT = ROOT / "benchmarks" / "gpu.sh"
STAND_IN = r"""#!/bin/bash
printf '%q ' "${EFFKERNELS_TEST_MINIMUM:-}" "$(basename "$0")" "$@" | tr '\n' ' ' >>"$CALLS"; echo >>"$CALLS"
[[ $* == *capability* ]] && echo 9.0
exit 0
"""


def test_every_stage_starts_existing_commands(tmp_path: Path) -> None:
    for name in ("python", "compute-sanitizer"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PYTHON": str(tmp_path / "python"),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
    }
    done = subprocess.run(
        [str(SCRIPT), str(tmp_path / "out")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ended = re.findall(r"^(\w+): exit 0, ", done.stdout.split("\n\n")[-1], re.MULTILINE)
    assert len(ended) >= 20
    assert all((tmp_path / "out" / f"{stage}.log").is_file() for stage in ended)
    calls = [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]

    parsed = [
        _parser().parse_args(call[4:]) for call in calls if call[2:4] == ["-m", "benchmarks.report"]
    ]
    assert all((p.device, p.resume) == ("cuda", True) for p in parsed)
    # Two stages may run at the same time, so no two write to the same folder.
    folders = [p.output for p in parsed]
    assert len(set(folders)) == len(folders)
    everything = suites(full=True, growth=True, device=Device("cuda", "bfloat16"))
    assert {name for p in parsed for name in p.suite} == {suite.name for suite in everything}
    (networks,) = (suite for suite in everything if suite.name == "networks")
    full = [p.only for p in parsed if p.full and p.suite == ["networks"]]
    for case in networks.cases:
        assert sum(only in case.key for only in full) == 1, case.key

    profiled = [call[4:] for call in calls if call[2:4] == ["-m", "benchmarks.profiles"]]
    folder = tmp_path / "out" / "profiles"
    wanted = [folder, folder / "two_kernels"]
    assert [profiles.parser().parse_args(options).folder for options in profiled] == wanted

    tested = [call for call in calls if "gpu" in call]
    assert sum("compute-sanitizer" in call for call in tested) == 4
    for call in tested:
        assert int(call[0]) >= 50
        for path in (word for word in call if word.startswith("tests/")):
            assert (ROOT / path).exists(), path
