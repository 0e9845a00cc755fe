"""The loop: it learns, equals a loop written out, and stops where it must."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import effkernels
from effkernels import train
from effkernels.checkpoints import read_state_dict
from effkernels.train import loop, memory, state
from effkernels.train.building import load_trained, new_model, scaled_config
from effkernels.train.memory import step_memory
from training import MODEL, make_job, make_pictures

# Learns within a few steps, and its running statistics follow.
QUICK: dict[str, Any] = {
    "recipe": "adamw",
    "lr": 0.003,
    "ema": 0.5,
    "bn_momentum": 0.3,
    "dropout": 0.0,
    "drop_path": 0.0,
}


def test_it_learns_and_leaves_weights_that_load(pictures: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    # With larger batches and last maps of 2 x 2 it learns whatever the seed and the order of sums.
    steady = {**QUICK, "lr": 0.01, "batch_size": 11, "resolution": 64}
    result = train.run(make_job(pictures, tmp_path, epochs=10, **steady))
    assert torch.equal(torch.get_rng_state(), before)
    assert [row["epoch"] for row in result.history] == list(range(1, 11))
    last = result.history[-1]
    assert last["top1"] > 0.6
    assert last["top5"] == 1.0
    with (tmp_path / "log.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [float(row["top1"]) for row in rows] == [row["top1"] for row in result.history]
    # The file is enough to build the model again, and gives the accuracy of the log.
    built = load_trained(MODEL, str(result.weights), None, torch.device("cpu"))
    assert built.classes == result.classes == ("blue", "green", "red")
    assert built.model.preprocessing.size == 64
    source = train.FolderSource(pictures / "val")
    batch = torch.stack([built.model.preprocessing(source.picture(i)) for i in range(9)])
    right = (built.model(batch).argmax(1) == torch.tensor(source.labels)).double().mean().item()
    assert right == pytest.approx(last["top1"])


def test_curves_are_drawn(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    train.run(make_job(pictures, tmp_path, epochs=1, curves=True))
    with Image.open(tmp_path / "curves.png") as drawn:
        assert drawn.width > 800


def test_it_equals_a_loop_written_out(pictures: Path, tmp_path: Path) -> None:
    job = make_job(
        pictures, tmp_path, epochs=1, precision="float64", dropout=0.0, drop_path=0.0, clip=None
    )
    train.run(job)
    ours = state.load(tmp_path / state.RESUME).tensors["model"]

    torch.manual_seed(train.loop.derive(0, train.loop.WEIGHTS))
    options = {"dropout": 0.0, "drop_path": 0.0, "dtype": torch.float64}
    model = new_model(MODEL, 3, width=0.25, depth=0.25, **options)
    model.preprocessing = replace(model.preprocessing, size=32)
    biases = [p for n, p in model.named_parameters() if p.dim() == 1]
    weights = [p for n, p in model.named_parameters() if p.dim() > 1]
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": 2e-5}, {"params": biases}],
        lr=0.001,
        momentum=0.9,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    source = train.FolderSource(pictures / "train")
    order = torch.randperm(22, generator=torch.Generator().manual_seed(0)).tolist()
    for step in range(5):
        chosen = order[4 * step : 4 * step + 4]
        x = torch.stack([model.preprocessing(source.picture(i)) for i in chosen]).double()
        y = torch.tensor([source.labels[i] for i in chosen])
        optimizer.zero_grad()
        F.cross_entropy(model(x), y, label_smoothing=0.1).backward()
        optimizer.step()
        schedule.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_accumulated_batches_are_one_batch(pictures: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "batch_norm": "running",
        "dropout": 0.0,
        "drop_path": 0.0,
        "precision": "float64",
        "epochs": 1,
    }
    train.run(make_job(pictures, tmp_path / "one", batch_size=6, **settings))
    train.run(make_job(pictures, tmp_path / "three", batch_size=2, accumulate=3, **settings))
    one, three = (
        state.load(tmp_path / name / state.RESUME).tensors["model"] for name in ("one", "three")
    )
    for name, value in one.items():
        torch.testing.assert_close(three[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_sixteen_bits(pictures: Path, tmp_path: Path, precision: str) -> None:
    result = train.run(make_job(pictures, tmp_path, precision=precision, clip=1.0, epochs=1))
    found = read_state_dict(result.weights).state_dict
    assert found["stem.conv.weight"].dtype == torch.float32
    assert all(value.isfinite().all() for value in found.values())


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    real = loop.training_loss

    def spoilt(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return real(*arguments) * (float("nan") if calls == 8 else 1.0)

    monkeypatch.setattr(loop, "training_loss", spoilt)
    said = (
        f"the loss is nan in step 3 of epoch 2: the last good checkpoint is {tmp_path}/model.safetensors, "
        f"after 1 epochs and 2 steps"
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        train.run(make_job(pictures, tmp_path))
    monkeypatch.undo()
    found = state.load(tmp_path / state.RESUME)
    assert (found.position.epoch, found.position.step) == (1, 2)
    assert all(value.isfinite().all() for value in found.tensors["model"].values())
    # From there it goes on.
    assert len(train.run(make_job(pictures, tmp_path, resume=True)).history) == 2


def test_weights_that_are_not_finite_are_not_saved(pictures: Path, tmp_path: Path) -> None:
    class Spoil(train.Watch):
        def step(self, pictures: int, loss: float | None) -> None:
            nonlocal steps
            steps += 1
            if steps == 4:
                training.model.classifier.bias.data[0] = float("inf")

    steps = 0
    job = make_job(pictures, tmp_path, epochs=1)
    training = loop._Training(job, loop.Processes(), torch.device("cpu"), Spoil())
    with pytest.raises(ValueError, match="statistics became NaN or inf before step 5 of epoch 1"):
        training.run()
    assert state.load(tmp_path / state.RESUME).position.step == 2


def test_unreadable_pictures_are_skipped_up_to_a_limit(tmp_path: Path) -> None:
    make_pictures(tmp_path / "train", {"a": 6, "b": 6})
    make_pictures(tmp_path / "val", {"a": 3, "b": 3}, seed=1)
    (tmp_path / "train" / "a" / "003.png").write_bytes(b"broken")
    (tmp_path / "val" / "b" / "001.png").write_bytes(b"")
    told: list[str] = []

    class Told(train.Watch):
        def problem(self, text: str) -> None:
            told.append(text)

    result = train.run(make_job(tmp_path, tmp_path / "run"), Told())
    assert sorted(result.problems) == sorted(told)
    assert len(told) == 2  # each is reported once, in two epochs
    assert any("003.png" in text and "not a picture" in text for text in told)
    with pytest.raises(ValueError, match="1 pictures cannot be read, more than --bad-pictures 0"):
        train.run(make_job(tmp_path, tmp_path / "strict", bad_pictures=0))


def test_progressive_resizing(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = []
    real = loop.training_mode

    def spy(model: Any, recipe: train.Recipe) -> None:
        real(model, recipe)
        sides.append((recipe.resolution, model.dropout.p))

    monkeypatch.setattr(loop, "training_mode", spy)
    job = make_job(
        pictures, tmp_path, epochs=4, progressive_from=20, progressive_stages=2, dropout=0.3
    )
    result = train.run(job)
    assert sides == [(20, 0.1), (20, 0.1), (32, 0.3), (32, 0.3)]
    built = load_trained(MODEL, str(result.weights), None, torch.device("cpu"))
    assert built.model.preprocessing.size == 32


def test_transfer_keeps_what_is_frozen(pictures: Path, trained: str, tmp_path: Path) -> None:
    weights = dict(read_state_dict(Path(trained)).state_dict)
    job = make_job(pictures, tmp_path, weights=trained, freeze=2, epochs=1, ema=0.0)
    second = train.run(job)
    after = read_state_dict(second.weights).state_dict
    for name, value in weights.items():
        frozen = name.startswith(("stem.", "stages.0.", "stages.1."))
        if value.is_floating_point():
            assert torch.equal(value, after[name]) == frozen, name


def test_a_new_head_favours_no_class(trained: str) -> None:
    model = new_model(MODEL, 7, width=0.25, depth=0.25, weights=trained).eval()
    assert not model(torch.randn(2, 3, 32, 32)).any()
    same = new_model(MODEL, 3, width=0.25, depth=0.25, weights=trained).eval()
    assert same.classifier.weight.any()


def test_a_new_head_for_other_classes(trained: str, tmp_path: Path) -> None:
    two = make_pictures(tmp_path / "two", {"left": 6, "right": 6})
    job = make_job(
        two,
        tmp_path / "run",
        weights=trained,
        holdout=4.0,
        epochs=1,
        batch_norm="frozen",
    )
    result = train.run(replace(job, batch_size=4))
    found = read_state_dict(result.weights)
    assert found.state_dict["classifier.weight"].shape[0] == 2
    assert found.record["classes"] == ["left", "right"]
    before = read_state_dict(Path(trained)).state_dict
    for name, value in before.items():
        if ".bn." in name:
            assert torch.equal(value, found.state_dict[name]), name


def test_distillation_follows_the_teacher_alone(
    pictures: Path, trained: str, tmp_path: Path
) -> None:
    found = {}
    for share in (1.0, 0.0):
        for smoothing in (0.0, 0.5):
            job = make_job(
                *(pictures, tmp_path / f"{share}-{smoothing}"),
                teacher=trained,
                distillation=share,
                temperature=2.0,
                label_smoothing=smoothing,
                epochs=1,
            )
            found[share, smoothing] = read_state_dict(train.run(job).weights).state_dict
    name = "classifier.weight"
    assert torch.equal(found[1.0, 0.0][name], found[1.0, 0.5][name])  # labels do not matter
    assert not torch.equal(found[0.0, 0.0][name], found[0.0, 0.5][name])


def test_teachers_of_other_classes_are_refused(trained: str, tmp_path: Path) -> None:
    other = make_pictures(tmp_path / "other", {"x": 6, "y": 6, "z": 6})
    wrong = make_job(other, tmp_path / "a", teacher=trained, holdout=3.0)
    with pytest.raises(ValueError, match="other classes than the pictures: 'blue' instead of 'x'"):
        train.run(wrong)
    two = make_pictures(tmp_path / "two", {"x": 6, "y": 6})
    wrong = make_job(two, tmp_path / "b", teacher=trained, holdout=4.0)
    with pytest.raises(ValueError, match="has 3 classes, the pictures have 2"):
        train.run(wrong)


def test_a_teacher_of_other_normalisation_is_refused(
    pictures: Path, trained: str, tmp_path: Path
) -> None:
    model = effkernels.create_model(MODEL, num_classes=3)
    model.preprocessing = replace(model.preprocessing, mean=(0.5, 0.5, 0.5))
    effkernels.checkpoints.save_checkpoint(model, tmp_path / "teacher.pth")
    job = make_job(pictures, tmp_path / "run", teacher=str(tmp_path / "teacher.pth"), epochs=1)
    # Random weights take the teacher's.
    taken = train.run(job)
    built = load_trained(MODEL, str(taken.weights), None, torch.device("cpu"))
    assert built.model.preprocessing.mean == (0.5, 0.5, 0.5)
    assert built.model.preprocessing.size == job.recipe.resolution
    job = replace(job, weights=trained, output=tmp_path / "other")
    with pytest.raises(ValueError, match=r"normalised with mean 0.5, 0.5, 0.5, the student with"):
        train.run(job)


def test_a_batch_that_does_not_fit_is_refused(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(pictures, tmp_path, epochs=1, batch_size=12)
    config = scaled_config(MODEL, 0.25, 0.25)
    options: dict[str, Any] = {"activations": torch.float32, "parameters": torch.float32}
    needed = step_memory(config, 7, 32, num_classes=3, averaged=True, **options)
    monkeypatch.setattr(memory, "free_memory", lambda device: needed + 1)
    with pytest.raises(ValueError, match=r"--batch-size 7 would fit \(with --accumulate 2 for"):
        train.run(job)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    with pytest.raises(ValueError, match="not even one picture would fit"):
        train.run(job)
    assert not (tmp_path / state.RESUME).exists()
    train.run(replace(job, check_memory=False))


def test_the_average_follows_tensorflows_warm_up() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    average = train.Average(model, 0.5)
    want = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(20):
        with torch.no_grad():
            for value in [*model.parameters(), model[1].running_mean, model[1].running_var]:
                value.add_(torch.randn_like(value))
            model[1].num_batches_tracked += 3
        average.update_parameters(model)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            floating = value.is_floating_point()
            want[name] = decay * want[name] + (1 - decay) * value if floating else value.clone()
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, want[name], msg=name)
