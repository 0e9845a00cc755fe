"""``effkernels table`` and ``effkernels info``."""

from __future__ import annotations

import json
import platform

import pytest
import torch

import effkernels
from command_line import Run
from effkernels.analysis.cost import model_cost


def test_table_shows_our_counts_and_the_papers(run: Run) -> None:
    result = run("table")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    rows = {line[0]: line[1:] for line in lines if len(line) == 9}
    assert rows["EfficientNet-B0"] == (
        ["77.1", "93.3", "5.3M", "1.0x", "5.29M", "0.39B", "1.0x", "0.386B"]
    )
    assert rows["ResNet-50"] == ["76.0", "93.0", "26M", "4.9x", "4.9x", "4.1B", "11x", "11x"]
    assert rows["EfficientNet-B1"][5] == "0.70B"
    assert rows["GPipe"] == ["84.3", "97.0", "557M", "8.4x", "8.4x", "-", "-", "-"]
    assert [name for name in rows if name.startswith("Eff")] == [
        f"EfficientNet-B{number}" for number in range(8)
    ]
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_table_as_json(run: Run) -> None:
    document = json.loads(run("table", "--json").stdout)
    rows = {row["published"]["network"]: row for row in document["rows"]}
    assert rows["EfficientNet-B0"]["params"] == 5_288_548
    assert rows["EfficientNet-B7"]["published"]["top1"] == 84.3
    assert rows["GPipe"]["macs_ratio"] is None
    assert "1905.11946" in document["source"]


def test_scaled_networks_of_tables_3_and_7(run: Run) -> None:
    result = run("table", "--scaled")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines() if line]
    start = [line[0] for line in lines].index("ResNet-50")
    assert lines[start : start + 5] == [
        ["ResNet-50", "76.0", "4.1B", "4.09B", "1.00x", "25.6M"],
        ["depth", "4", "78.1", "16.2B", "14.6B", "1.11x", "89.8M"],
        ["width", "2", "77.7", "14.7B", "16.1B", "0.91x", "98.0M"],
        ["resolution", "2", "77.5", "16.4B", "16.4B", "1.00x", "25.6M"],
        ["compound", "78.8", "16.7B", "-", "-", "-"],
    ]
    assert ["depth", "1.4", "width", "1.2", "resolution", "1.3", "75.6", "2.3B"] in [
        line[:8] for line in lines
    ]
    text = " ".join(result.stdout.split())
    assert "up to a fifth above the exact count" in text
    assert "the paper does not print the factors" in text
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_scaled_networks_as_json(run: Run) -> None:
    document = json.loads(run("table", "--scaled", "--json").stdout)
    assert "Tables 3 and 7" in document["source"]
    assert len(document["rows"]) == 14 + 5
    first, unprinted = document["rows"][0], document["rows"][8]
    assert (first["params"], first["macs"]) == (4_231_976, 568_740_352)
    assert first["ratio"] == 600_000_000 / 568_740_352
    assert unprinted["published"]["scaling"] == "compound"
    assert unprinted["published"]["factors"] is unprinted["macs"] is unprinted["ratio"] is None


def test_a_narrow_terminal_cuts_no_number(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for arguments in (["table"], ["table", "--scaled"], ["info", "efficientnet_l2"]):
        assert "…" not in run(*arguments).stdout


def test_info_lists_versions_backends_and_the_build(run: Run) -> None:
    document = json.loads(run("info", "--json").stdout)
    assert document["versions"]["effkernels"] == effkernels.__version__
    assert document["versions"]["python"] == platform.python_version()
    assert document["models"] == effkernels.list_models()
    assert list(document["backends"]) == list(effkernels.backends())
    text = " ".join(run("info").stdout.split())
    for status in effkernels.backends().values():
        assert status.reason is None or status.reason in text
    for reason in document["compiled"].values():
        assert reason is None or " ".join(reason.split()) in text
    assert torch.__version__.partition("+")[0] in text
    sets = document["build"].get("instruction_sets")
    if sets is not None:
        assert (
            f"available, with {sets['in_use']} instructions (of {', '.join(sets['kernels'])}): "
            in text
        )


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite4"])
def test_info_of_a_model_adds_up(run: Run, name: str) -> None:
    document = json.loads(run("info", name, "--json").stdout)
    cost = model_cost(name)
    assert (document["params"], document["macs"]) == (cost.params, cost.macs)
    rows = document["rows"]
    names = ["stem", *(f"stages.{s}" for s in range(7)), "head", "classifier"]
    assert [row["name"] for row in rows] == names
    assert sum(row["params"] for row in rows) == cost.params
    assert sum(row["macs"] for row in rows) == cost.macs
    assert sum(row["bytes_level1"] for row in rows) == cost.bytes_moved.level1
    assert [row["blocks"] for row in rows if row["blocks"]] == [
        len(list(stage.children())) for stage in effkernels.create_model(name).stages
    ]


@pytest.mark.parametrize(
    ("name", "kernels", "blocks"),
    [
        ("resnet50", ["7x7/2", "3x3/2", "3x3/1", *["3x3/2"] * 3, "1x1"], [3, 4, 6, 3]),
        ("mobilenet_v1", ["3x3/2", "3x3/1", *["3x3/2"] * 4, "1x1"], [1, 2, 2, 6, 2]),
    ],
)
def test_info_of_a_baseline(run: Run, name: str, kernels: list[str], blocks: list[int]) -> None:
    rows = json.loads(run("info", name, "--json").stdout)["rows"]
    assert [row["kernel"] for row in rows] == kernels
    assert [row["blocks"] for row in rows if row["blocks"]] == blocks
    assert sum(row["macs"] for row in rows) == model_cost(name).macs


def test_info_of_a_model_as_text_fits_80_columns(run: Run) -> None:
    result = run("info", "efficientnet_b0", "--resolution", 300, "--batch-size", 8)
    assert result.exit_code == 0
    assert "8 pictures of 300 x 300 pixels, float32" in result.stdout
    assert "5,288,548" in result.stdout
    assert "1280x10x10" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["efficientnet_b9"], "did you mean efficientnet_b"),
        (["efficientnet_b0", "--resolution", "0"], "resolution must be at least 1, got 0"),
        (["efficientnet_b0", "--batch-size", "-1"], "--batch-size must be at least 1, got -1"),
        (["--resolution", "300"], "effkernels info MODEL"),
        (["efficientnet_b0", "--dtype", "complex64"], "'complex64' is not one of"),
    ],
)
def test_bad_arguments_are_one_line(run: Run, arguments: list[str], said: str) -> None:
    assert said in run("info", *arguments).error
