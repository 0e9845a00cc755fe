"""``effkernels choose``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import effkernels
from command_line import Run

QUICK = ("--model", "efficientnet_lite0", "--device", "cpu", "--seconds", "0")


def test_text_and_picture(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "front.png"
    result = run("choose", "--latency", "60s", "--macs", "400M", *QUICK, "-o", picture)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0][:3] == ["model", "pixels", "top-1"]
    assert lines[1][:5] == [">", "lite0", "224", "75.1", "0.385B"]
    assert lines[2][:3] == ["lite0", "240", "0.462B"]
    assert lines[2][-2:] == ["over", "macs"]
    assert "> efficientnet_lite0 at 224 pixels: 75.1 % with" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_as_json_on_one_thread(run: Run) -> None:
    before = torch.get_num_threads()
    document = json.loads(
        run("choose", "--memory", "64MiB", *QUICK, "--threads", 1, "--json").stdout
    )
    assert document["limits"] == {"memory": 64 * 2**20}
    assert document["threads"] == 1
    assert document["best"] == {"model": "efficientnet_lite0", "resolution": 224}
    assert document["versions"]["effkernels"] == effkernels.__version__
    first, second = document["rows"]
    assert first["accuracy"]["source"] == "lukemelas/efficientnet_lite0"
    assert second["accuracy"] is None
    assert torch.get_num_threads() == before


def test_a_picture_is_replaced_only_on_request(run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "front.png"
    kept.write_text("kept")
    error = run("choose", "--macs", "1G", "-o", kept).error
    assert f"{kept} exists already: pass --force" in error
    assert kept.read_text() == "kept"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no limit given: pass --latency, --memory, --macs or --parameters"),
        (["--latency", "10"], "'10' is not a time: write a number and one of us"),
        (["--latency", "10MS"], "'10MS' is not a time"),
        (["--latency", "-3ms"], "'-3ms' is not a time"),
        (["--latency", "0s"], "'0s' must be above 0 and finite"),
        (["--memory", "64"], "'64' is not a size in memory"),
        (["--memory", "64mb"], "'64mb' is not a size in memory"),
        (["--macs", "1.2B"], "'1.2B' is not a count: write a number and one of K, M, G, T"),
        (["--parameters", "1e999"], "must be above 0 and finite"),
        (["--macs", "100M"], "--macs 100000000 is below the minimum of 385"),
        (["--macs", "1G", "--device", "toaster"], "is no device"),
        (["--macs", "1G", "--device", "cuda:99"], "--device 'cuda:99'"),
        (["--macs", "1G", "--batch", "0"], "--batch-size must be at least 1, got 0"),
        (["--macs", "1G", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["--macs", "1G", "--seconds", "nan"], "--seconds must be finite"),
        (["--macs", "1G", "-m", "efficientnet_b9"], "no model named 'efficientnet_b9'"),
        (["--macs", "1G", "-o", "front.txt"], "must end in one of .png, .svg, .pdf"),
        (["--macs", "600M", "--parameters", "7M", "-m", "*b1", "-m", "*lite2"], "at once"),
        (["--latency", "1us", *QUICK], "--latency 1e-06 s is below what the fastest candidate"),
    ],
)
def test_bad_arguments_are_one_line(run: Run, arguments: list[str], said: str) -> None:
    assert said in run("choose", *arguments).error


@pytest.mark.parametrize(
    ("given", "value"),
    [("10ms", 0.01), ("0.5 s", 0.5), ("250us", 2.5e-4), ("1.5e-2s", 0.015), (".5ms", 5e-4)],
)
def test_times(given: str, value: float) -> None:
    from effkernels_cli.quantities import read_time

    assert read_time(given) == pytest.approx(value, rel=1e-12)


def test_counts_and_sizes() -> None:
    from effkernels_cli.quantities import read_bytes, read_count

    assert [read_count(given) for given in ("5000000", "400M", "1.2G")] == [5e6, 4e8, 1.2e9]
    assert [read_bytes(given) for given in ("64MB", "1 KiB", "2GiB")] == [64e6, 1024, 2 * 2**30]
