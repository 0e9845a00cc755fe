"""``effkernels train`` and ``evaluate``: from pictures to weights to accuracies, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from command_line import Run
from effkernels.cli import train as command
from effkernels.train.building import load_trained, new_model
from oracles import oracle
from processes import run_python
from training import make_pictures

QUICK = (
    *("--recipe", "sgd", "--epochs", "2", "--lr", "0.001", "--warmup-epochs", "0", "--ema", "0.5"),
    *("--augment", "none", "--crop", "centre", "--mixup", "0", "--cutmix", "0", "--erase", "0"),
    *("--resolution", "32", "--width", "0.25", "--depth", "0.25", "--batch-size", "4"),
    *("--device", "cpu", "--workers", "0"),
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    make_pictures(folder / "train", {"apple": 6, "pear": 6})
    make_pictures(folder / "val", {"apple": 3, "pear": 3}, seed=1)
    return folder


def test_train_then_use_the_weights(run: Run, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    result = run("train", "--data", pictures, "--output", output, *QUICK)
    assert (result.exit_code, result.stderr) == (0, "")
    first, second, last = result.stdout.splitlines()
    assert first.startswith("epoch 1/2: loss ")
    assert second.startswith("epoch 2/2: loss ")
    assert "top-1" in second
    assert last == f"weights: {output / 'model.safetensors'}"

    again = run("train", "--data", pictures, "--output", output, *QUICK, "--resume", "--json")
    document = json.loads(again.stdout)
    assert document["classes"] == ["apple", "pear"]
    assert [row["epoch"] for row in document["history"]] == [1, 2]
    assert document["recipe"]["lr"] == 0.001

    weights = ("--weights", output / "model.safetensors")
    drawn = tmp_path / "drawn"
    found = run("evaluate", pictures / "val", *weights, "-o", drawn, "--json", "--workers", "0")
    scores = json.loads(found.stdout)
    assert scores["top1"] == document["history"][-1]["top1"]
    assert scores["classes"] == ["apple", "pear"]
    assert scores["model"] == "efficientnet_lite0"
    assert sorted(path.name for path in drawn.iterdir()) == ["calibration.png", "confusion.png"]
    shown = run("evaluate", pictures / "val", *weights, "--workers", "0").stdout
    assert f"top-1        {100 * scores['top1']:.2f} %" in shown

    picture = pictures / "val" / "pear" / "000.png"
    named = json.loads(run("predict", picture, *weights, "--topk", "2", "--json").stdout)
    assert {entry["label"] for entry in named["pictures"][0]["top"]} == {"apple", "pear"}
    shown = run("cam", picture, *weights, "--class", "pear", "-o", tmp_path / "cam.png")
    assert "efficientnet_lite0: pear" in shown.stdout


def test_tensorboard(run: Run, pictures: Path, tmp_path: Path) -> None:
    oracle("tensorboard")
    output = tmp_path / "run"
    assert run("train", "--data", pictures, "-o", output, *QUICK, "--tensorboard").exit_code == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(output / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("top1")] == [1, 2]


# From the weights of the other two: tests/models/test_baselines.py loads them.
@pytest.mark.parametrize(
    ("model", "weights"), [("resnet50", False), ("mobilenet_v1", False), ("mobilenet_v2", True)]
)
def test_networks_of_other_kinds(
    run: Run, pictures: Path, tmp_path: Path, model: str, weights: bool
) -> None:
    options = (*QUICK, "--model", model, "--epochs", 1, "--ema", 0, "--freeze", 0)
    if weights:
        theirs = getattr(oracle("torchvision.models"), model)()
        torch.save(theirs.state_dict(), tmp_path / "start.pth")
        options = (*options, "--weights", tmp_path / "start.pth", "--width", 1, "--depth", 1)
    output = tmp_path / "run"
    done = run("train", "--data", pictures, "--output", output, *options)
    assert (done.exit_code, done.stderr) == (0, "")
    trained = load_trained(
        model, str(output / "model.safetensors"), None, torch.device("cpu")
    ).model
    assert trained.num_classes == 2
    if weights:
        begun = new_model(model, 2, weights=str(tmp_path / "start.pth"))
        # The stem is frozen: it is that of the weights.
        stem = trained.stem.conv.weight  # type: ignore[union-attr]
        assert torch.equal(stem, begun.stem.conv.weight)  # type: ignore[union-attr]
        assert not torch.equal(
            next(trained.stages[1].parameters()), next(begun.stages[1].parameters())
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--lr", "-1"], "--lr must be finite and at least 0, got -1.0"),
        (["--lr", "nan"], "--lr must be finite and at least 0, got nan"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--batch-size", "13"], "12 training pictures do not fill one batch of 13"),
        (["--accumulate", "4"], "12 training pictures do not fill one step of 16"),
        (["--label-smoothing", "1.5"], "--label-smoothing must be from 0 to 1"),
        (["--sync-bn"], "--sync-bn needs GPUs"),
        (["--precision", "fp8"], "--precision must be one of float32, bfloat16, float16, float64"),
        (["--recipe", "best"], "no recipe named 'best'"),
        (["--model", "efficientnet_b9"], "no model named 'efficientnet_b9'"),
        (["--data", "nowhere"], "no such folder: nowhere"),
        (["--data", "fashion-mnist:nowhere"], "apt-get install dataset-fashion-mnist"),
        (["--data", "x-{0..3}.tar"], "no such shard: x-0.tar (4 of 4 are missing)"),
        (["--data", "*.tar"], "no shards match *.tar"),
        (["--subset", "99"], "--subset must be a share below 1 or a number of pictures below 12"),
        (["--weights", "nowhere.pth"], "no such checkpoint file: nowhere.pth"),
        (["--teacher", "nowhere.pth"], "no such checkpoint file: nowhere.pth"),
        (["--freeze", "9"], "freeze must be at most 8"),
        (["--width", "0"], "width must be above 0"),
        (["--holdout", "2"], "apple"),
        (["--device", "toaster"], "is no device"),
        (["--output", "/dev/null/run"], "cannot write into /dev/null/run"),
    ],
)
def test_wrong_arguments_are_one_line(
    run: Run,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[-1].endswith(".tar"):
        oracle("webdataset")
    if arguments[0] == "--holdout":
        make_pictures(tmp_path / "few", {"apple": 1, "pear": 9})
        arguments = [*arguments, "--data", "few"]
        said = "training pictures do not fill"
        arguments += ["--batch-size", "9"]
    result = run("train", "--data", pictures, "--output", "run", *QUICK, *arguments)
    assert said in result.error
    assert not list(tmp_path.rglob("*.pt"))


def test_weights_of_another_model_are_one_line(
    run: Run, pictures: Path, tmp_path: Path, seven_classes: Path
) -> None:
    arguments = ("--weights", seven_classes, "--model", "efficientnet_b0")
    result = run("train", "--data", pictures, "--output", tmp_path / "run", *QUICK, *arguments)
    assert "the model to build is" in result.error or "looks like" in result.error


def test_evaluating_other_classes_is_one_line(
    run: Run, pictures: Path, tmp_path: Path, seven_classes: Path
) -> None:
    result = run("evaluate", pictures / "val", "--weights", seven_classes)
    assert "2 of 2 class folders are none of the model's 7 classes: apple, pear" in result.error
    assert "no such folder" in run("evaluate", tmp_path / "none").error
    assert "efficientnet_b99" in run("evaluate", pictures / "val", "-m", "efficientnet_b99").error


def test_imports_stay_light_and_without_torchvision_the_error_is_one_line(
    pictures: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None; import effkernels\n"
        "before = set(sys.modules); import effkernels.train, effkernels.studies\n"
        "heavy = {'timm', 'matplotlib', 'optuna', 'tensorboard', 'torchmetrics', 'PIL'}\n"
        "print(*sorted(heavy & set(sys.modules)), 'effkernels.train' in before)\n"
        "import effkernels_cli as c; c.main()"
    )
    quick = [value for value in QUICK if value not in ("--crop", "centre")]
    arguments = ["train", "--data", str(pictures), "--output", str(tmp_path / "run"), *quick]
    done = run_python("-c", code, *arguments)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert done.stderr == (
        "effkernels: augmentation needs torchvision, which is not installed: "
        'pip install "effkernels[train]"\n'
    )


def test_the_default_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, workers in ((None, 0), (1, 0), (2, 2), (64, 4)):
        monkeypatch.setattr(command.os, "cpu_count", lambda cores=cores: cores)
        assert command.default_workers() == workers


def test_unreadable_pictures_are_named(run: Run, tmp_path: Path) -> None:
    make_pictures(tmp_path / "train", {"apple": 6, "pear": 6})
    make_pictures(tmp_path / "val", {"apple": 3, "pear": 3}, seed=1)
    (tmp_path / "train" / "apple" / "003.png").write_bytes(b"broken")
    result = run("train", "--data", tmp_path, "--output", tmp_path / "run", *QUICK)
    assert result.exit_code == 0
    assert result.stderr.count("effkernels: skipped: ") == 1
    assert "003.png" in result.stderr
    assert result.stdout.splitlines()[-1] == "1 pictures could not be read"
    strict = run(
        *("train", "--data", tmp_path, "--output", tmp_path / "strict"), *QUICK, "--bad-pictures", 0
    )
    assert strict.exit_code == 2
    assert "more than --bad-pictures 0" in strict.stderr
