"""Accuracy, confusion and calibration, beside torchmetrics where it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from effkernels import train
from effkernels.data import imagenet_classes
from effkernels.train.building import load_trained
from effkernels.train.evaluation import (
    calibration,
    confusion_matrix,
    draw_calibration,
    draw_confusion,
)
from effkernels.train.processes import Processes
from effkernels.train.validation import Tally
from oracles import oracle
from training import MODEL, make_job, make_pictures


def test_classes_are_matched() -> None:
    match = train.match_classes
    assert match(["a", "c"], ["c", "b", "a"], stated=True) == [2, 0]
    assert match(["x", "y"], ["class 0", "class 1"], stated=False) == [0, 1]
    with pytest.raises(
        ValueError, match="1 of 2 class folders are none of the model's 2 classes: y"
    ):
        match(["x", "y"], ["x", "z"], stated=True)
    names = imagenet_classes()
    folders = [f"n{index:08}" for index in range(1000)]
    assert match(folders, names, stated=False) == list(range(1000))
    assert match(["tabby", "espresso"], names, stated=False) == [281, 967]
    with pytest.raises(ValueError, match="all 1000 are needed, found 10"):
        match(folders[:10], names, stated=False)
    with pytest.raises(
        ValueError, match=r"1000 of 1000 class folders .* c0, c1, c2, c3, c4 \.\.\."
    ):
        match([f"c{index}" for index in range(1000)], names, stated=False)


def test_a_tally_of_two_batches() -> None:
    logits = torch.randn(12, 7).double()
    labels = torch.randint(7, (12,))
    tally = Tally(torch.device("cpu"))
    for part in (slice(0, 5), slice(5, 12)):
        tally.add(logits[part], labels[part])
    scores = tally.scores(Processes())
    order = logits.argsort(1, descending=True)
    assert scores.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    assert scores.top1 == pytest.approx((order[:, 0] == labels).double().mean().item())
    hits = (order[:, :5] == labels[:, None]).any(1)
    assert scores.top5 == pytest.approx(hits.double().mean().item())
    assert scores.pictures == 12
    with pytest.raises(ValueError, match="none of the validation pictures"):
        Tally(torch.device("cpu")).scores(Processes())


def test_calibration_by_hand() -> None:
    sure = torch.tensor([0.1, 0.2, 0.7, 0.9, 1.0])
    right = torch.tensor([False, True, True, True, False])
    found = calibration(sure, right, bins=2)
    assert found.count.tolist() == [2, 3]
    torch.testing.assert_close(found.confidence, torch.tensor([0.15, 2.6 / 3]).double())
    torch.testing.assert_close(found.accuracy, torch.tensor([0.5, 2 / 3]).double())
    assert found.error == pytest.approx((2 * 0.35 + 3 * (2.6 - 2) / 3) / 5)


def test_torchmetrics_finds_the_same() -> None:
    metrics = oracle("torchmetrics.functional.classification")
    probabilities = torch.randn(200, 6).mul(2).softmax(1)
    labels = torch.randint(6, (200,))
    sure, predicted = probabilities.max(1)
    theirs = metrics.multiclass_confusion_matrix(probabilities, labels, 6)
    assert torch.equal(confusion_matrix(predicted, labels, 6), theirs)
    error = metrics.multiclass_calibration_error(probabilities, labels, 6, n_bins=15, norm="l1")
    assert calibration(sure, predicted == labels).error == pytest.approx(error.item(), rel=1e-4)


def test_a_trained_model_is_evaluated(pictures: Path, tmp_path: Path) -> None:
    result = train.run(make_job(pictures, tmp_path / "run", epochs=1))
    built = load_trained(MODEL, str(result.weights), None, torch.device("cpu"))
    # Part of the classes, one picture of which cannot be read.
    make_pictures(tmp_path / "new", {"blue": 3, "red": 4}, seed=5)
    (tmp_path / "new" / "red" / "002.png").write_bytes(b"broken")
    source = train.FolderSource(tmp_path / "new")
    assert built.classes is not None
    classes = train.match_classes(source.classes, built.classes, stated=True)
    seen: list[int] = []
    found = train.evaluate(
        built.model, source, classes, built.classes, batch_size=3, watch=seen.append
    )
    assert sum(seen) == 7
    assert found.scores.pictures == 6
    assert found.confusion.sum(1).tolist() == [3, 0, 3]
    assert found.confusion.trace().item() == round(6 * found.scores.top1)
    assert found.calibration.count.sum() == 6
    assert len(found.problems) == 1
    assert "002.png" in found.problems[0]

    pytest.importorskip("matplotlib")
    draw_confusion(found, tmp_path / "confusion.png")
    draw_calibration(found, tmp_path / "calibration.png")
    for name in ("confusion", "calibration"):
        with Image.open(tmp_path / f"{name}.png") as drawn:
            assert min(drawn.size) > 300
