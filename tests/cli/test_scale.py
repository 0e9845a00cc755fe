"""``effkernels scale``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import Run
from effkernels.models import get_config, read_config, write_config
from effkernels.scaling import compound_scale, scaled_config


def test_the_papers_triple_on_b0(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "scaled.json"
    result = run("scale", "--phi", "1", "-o", output)
    assert (result.exit_code, result.stderr) == (0, "")
    text = " ".join(result.stdout.split())
    for said in (
        "nominal product 1.92 = 1.2 * 1.1^2 * 1.15^2",
        "MACs ratio 2.573 realised, 1.92 nominal, at phi 1",
        "resolution 258 pixels",
        "parameters 9,109,994",
        "MACs 992,629,472",
    ):
        assert said in text
    assert read_config(output) == scaled_config(compound_scale(1.0))
    assert f"{output} exists already" in run("scale", "--phi", "1", "-o", output).error


def test_a_file_as_the_base(run: Run, tmp_path: Path) -> None:
    base = tmp_path / "base.json"
    write_config(get_config("efficientnet_lite0").scale(resolution=0.5), base)
    options = ("--alpha", "2", "--beta", "1", "--gamma", "1", "--phi", "1")
    document = json.loads(run("scale", "--base", base, *options, "--json").stdout)
    assert document["resolution"] == 112
    assert document["depth"] == 2.0
    assert document["nominal_product"] == 2.0
    assert document["base"]["resolution"] == 112
    assert document["realised_ratio"] == document["macs"] / document["base"]["macs"]
    assert document["config"]["activation"] == "relu6"
    assert document["notes"] == []


def test_a_baseline_as_the_base(run: Run) -> None:
    document = json.loads(run("scale", "--base", "resnet50", "--phi", "1", "--json").stdout)
    assert document["base"]["macs"] == 4_089_184_256
    assert document["config"]["stem_pool"] is True
    assert document["config"]["head_channels"] == 0
    assert (document["parameters"], document["macs"]) == (39_031_600, 9_191_097_432)


def test_an_unusual_product_is_a_note(run: Run) -> None:
    result = run("scale", "--phi", "1", "--alpha", "3")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "= 4.801 is not about 2" in " ".join(result.stdout.split())


def test_a_budget_leaves_all_three_free(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "free.json"
    result = run("scale", "--macs", "0.8G", "--memory", "200MB", "-o", output)
    assert (result.exit_code, result.stderr) == (0, "")
    _, free, compound, *_ = result.stdout.splitlines()
    config = read_config(output)
    assert free.split()[:4] == [
        "free",
        f"{config.coefficients.depth:.3f}",
        f"{config.coefficients.width:.3f}",
        str(config.resolution),
    ]
    assert compound.startswith("phi 0.")
    assert "fitted to the" in result.stdout
    document = json.loads(run("scale", "--macs", "0.8G", "--memory", "200MB", "--json").stdout)
    assert document["macs"] <= 8e8
    assert document["accuracy"] >= document["compound"]["accuracy"]
    assert len(document["law"]["residuals"]) == 13


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "how far? pass --phi, or a budget by --macs or --memory"),
        (["--phi", "1", "--macs", "1G"], "--phi and a budget contradict each other"),
        (["--macs", "1G", "--alpha", "1.2"], "--alpha is for --phi"),
        (["--macs", "1M"], "--macs 1000000 is below the minimum of 385814752"),
        (["--macs", "1 giga"], "'1 giga' is not a count"),
        (["--phi", "-1"], "phi must be finite and at least 0, got -1"),
        (["--phi", "1", "--gamma", "0.9"], "gamma must be finite and at least 1"),
        (["--phi", "9999"], "is too large"),
        (["--phi", "1", "--base", "resnet18"], "no model named 'resnet18': did you mean resnet50"),
        (["--phi", "1", "--base", "nowhere.json"], "nowhere.json"),
        (["--phi", "1", "-o", "scaled.yaml"], "must end in one of .json"),
        (["--macs", "1G", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_one_line(run: Run, arguments: list[str], said: str) -> None:
    assert said in run("scale", *arguments).error


def test_a_file_that_is_no_configuration(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    path.write_text('{"name": "x", "width": 2}')
    error = run("scale", "--base", path, "--phi", "1").error
    assert (
        "base.json holds no configuration: the configuration has an unknown entry 'width'" in error
    )
