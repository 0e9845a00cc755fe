"""A model beside a network of torchvision's: what is timed, and what is said of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from command_line import Run
from effkernels.analysis.choice import Latency
from effkernels.analysis.paper import TABLE_2, TABLE_4
from effkernels.choosing import beside
from effkernels.choosing.beside import Beside, Timed
from effkernels.choosing.drawing import draw_beside
from effkernels.cli.beside import _print

QUICK = ("--device", "cpu", "--seconds", 0)


def measured() -> Beside:
    times = [Latency(0.02, 0.019, 0.021), Latency(0.05, 0.049, 0.051), Latency(1.2, 1.1, 1.3)]
    ours, same, other = (
        Timed(model, by, "somehow", side, 7_800_000, time)
        for model, by, side, time in (
            ("efficientnet_b1", "effkernels", 240, times[0]),
            ("efficientnet_b1", "torchvision", 240, times[1]),
            ("resnet152", "torchvision", 224, times[2]),
        )
    )
    ratios = Latency(60.0, 55.0, 65.0), Latency(24.0, 23.0, 25.0)
    return Beside(ours, same, other, *ratios, TABLE_4[0], torch.device("cpu"), "Some CPU", 1, 1,
                  torch.float32, 5)  # fmt: skip


def test_table_4() -> None:
    titles = {row.network for row in TABLE_2}
    for row in TABLE_4:
        assert row.other in titles
        assert row.other_seconds / row.seconds == pytest.approx(row.ratio, abs=0.051)


def test_two_networks_run(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("matplotlib")
    before = torch.get_num_threads()
    picture = tmp_path / "two.png"
    options = (*QUICK, "--model", "efficientnet_lite0", "--json", "-o", picture)
    document = json.loads(run("choose", "--beside", "squeezenet1_1", *options).stdout)
    assert torch.get_num_threads() == before
    assert document["threads"] == 1
    assert document["machine"]
    assert (document["same"], document["ratio_by_torchvision"], document["published"]) == (
        None,
    ) * 3
    ours, other = document["ours"], document["other"]
    assert (ours["model"], ours["resolution"], ours["parameters"]) == (
        "efficientnet_lite0",
        224,
        4652008,
    )
    assert (other["model"], other["resolution"], other["parameters"]) == (
        "squeezenet1_1",
        224,
        1235496,
    )
    assert other["execution"].startswith("eager, ")
    ratio = other["latency"]["median"] / ours["latency"]["median"]
    assert ratio / 3 < document["ratio"]["median"] < 3 * ratio
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_ways_to_run_a_network_give_the_same() -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    image = torch.randn(1, 3, 32, 32)
    forms = dict(beside._forms(network))
    assert list(forms) == ["", ", BatchNorm folded"]
    kinds = [type(module) for module in forms[", BatchNorm folded"].modules()]
    assert torch.nn.BatchNorm2d not in kinds
    with torch.inference_mode():
        wanted = network(image)
        torch.testing.assert_close(forms[", BatchNorm folded"](image), wanted, rtol=1e-3, atol=1e-3)


def test_a_network_that_cannot_be_traced_runs_as_it_is() -> None:
    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    assert [how for how, _ in beside._forms(Branching().eval())] == [""]


def test_what_is_said_and_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = measured()
    _print(found, "requested", None)
    said = capsys.readouterr().out
    assert (
        "resnet152 takes 60.00 times as long as efficientnet_b1 (quartiles 55.00 to 65.00)" in said
    )
    assert "24.00 times as long as torchvision's efficientnet_b1" in said
    assert "ResNet-152 0.554 s, efficientnet_b1 0.098 s: 5.7 times" in said
    assert "GPipe (19.0 s beside efficientnet_b7's 3.1 s, 6.1 times) cannot be measured" in said
    assert "Some CPU, 1 thread" in said
    draw_beside(found, tmp_path / "two.svg")
    text = (tmp_path / "two.svg").read_text()
    for drawn in ("published: 1 image", "measured: 1 image", "20 ms", "1200 ms", "554 ms"):
        assert f"<!-- {drawn}" in text, drawn
    alone = replace(found, same=None, ratio_by_torchvision=None, published=None)
    _print(alone, "requested", None)
    assert (
        "The paper has no latency of efficientnet_b1 beside resnet152." in capsys.readouterr().out
    )
    assert json.loads(json.dumps(found.as_dict()))["published"]["ratio"] == 5.7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resnet512",), "torchvision has no classifier named 'resnet512': did you mean resnet152 or"),
        (("nothing-like-it",), "named 'nothing-like-it': such as resnet50 and resnet152"),
        (("fcn_resnet50",), "torchvision has no classifier named 'fcn_resnet50'"),
        (("resnet18", "--model", "b99"), "no model named 'b99'"),
        (("resnet18", "-m", "efficientnet_b0", "-m", "efficientnet_b1"), "takes one --model, got 2"),
        (("resnet18", "--latency", "10ms"), "--beside measures two networks: it takes no --latency"),
        (("resnet18", "--every-source"), "and no --every-source"),
        (("resnet18", "--threads", 0), "--threads must be at least 1, got 0"),
        (("resnet18", "-o", "x.txt"), "its name must end in one of .png, .svg, .pdf"),
    ],
)  # fmt: skip
def test_errors(run: Run, arguments: tuple[object, ...], said: str) -> None:
    pytest.importorskip("torchvision")
    assert said in run("choose", "--beside", *arguments, *QUICK).error


def test_torchvision_is_optional(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert run("choose", "--beside", "resnet152", *QUICK).error == (
        "effkernels: a network of torchvision's beside a model needs torchvision, which is not installed: "
        'pip install "effkernels[train]"'
    )
