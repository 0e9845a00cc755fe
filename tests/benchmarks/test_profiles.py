"""`benchmarks.profiles`, on the CPU: what it writes for a case."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import profiles
from requirements import needs_cpu_kernels


@needs_cpu_kernels
def test_a_case_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "profiles"
    options = [str(folder), "--device", "cpu", "--runs", "1", "--only", "efficientnet_b0-1"]
    cases = {"cpu": (("efficientnet_b0", 1), ("efficientnet_b4", 1))}
    monkeypatch.setattr(profiles, "CASES", cases)
    assert profiles.main(options) == 0
    assert {path.name for path in folder.iterdir()} == {
        "efficientnet_b0-1.json",
        "efficientnet_b0-1.txt",
    }
    document = json.loads((folder / "efficientnet_b0-1.json").read_text())
    assert document["machine"]["versions"]["torch"]
    assert document["profile"]["input_shape"] == [1, 3, 224, 224]
    text = (folder / "efficientnet_b0-1.txt").read_text()
    assert text.startswith("efficientnet_b0, 1x3x224x224 float32 on ")
    assert text in capsys.readouterr().out
