"""Activation maps of the five networks of Table 7."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import effkernels.studies.store
from effkernels.studies import OutOfTime, Pictures, Setting, Store, Trainer, maps
from studies import TINY, stripes

QUICK = replace(TINY, pictures=20, held_out=20)


def trainer(folder: Path, seconds: float | None = None) -> Trainer:
    def pictures(setting: Setting) -> Pictures:
        return Pictures(setting, stripes())

    return Trainer(Store(folder / "trainings.jsonl"), seconds, open_pictures=pictures)


def test_factors_are_those_of_table_7() -> None:
    found = {way: (t.alpha, t.beta, t.gamma) for way, t in maps.five().items()}
    assert found == {
        "base": (1.0, 1.0, 1.0),
        "depth": (4.0, 1.0, 1.0),
        "width": (1.0, 2.0, 1.0),
        "resolution": (1.0, 1.0, 2.0),
        "compound": (1.4, 1.2, 1.3),
    }


def test_five_networks_are_trained_once_and_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutOfTime):
        maps.maps_study(QUICK, trainer(tmp_path, seconds=-1.0))
    document = maps.maps_study(QUICK, trainer(tmp_path))
    weights = sorted((tmp_path / "weights").iterdir())
    assert len(weights) == 5 * 2

    def forbidden(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(effkernels.studies.store, "train_and_keep", forbidden)
    assert maps.maps_study(QUICK, trainer(tmp_path)) == document
    sides = {"base": 4, "depth": 4, "width": 4, "resolution": 7, "compound": 5}
    assert [picture["class"] for picture in document["pictures"]] == ["across", "along"]
    for picture in document["pictures"]:
        assert torch.tensor(picture["pixels"]).shape == (28, 28)
        for way, side in sides.items():
            one = picture["maps"][way]
            assert torch.tensor(one["map"]).shape == (side, side)
            assert 0 < one["probability"] < 1
    assert [model["way"] for model in document["models"]] == list(sides)
    assert all(0 < model["object_share"] < 1 for model in document["models"])
    page = maps.page(json.loads(json.dumps(document)))
    assert "| compound | 1.4, 1.2, 1.3 | 18 |" in page
    figure = pytest.importorskip("matplotlib.figure").Figure()
    maps.draw(document, figure)
    assert len(figure.axes) == 2 * 6
    assert [len(axes.images) for axes in figure.axes[:6]] == [1, 2, 2, 2, 2, 2]
    weights[0].write_bytes(b"no weights")
    with pytest.raises(ValueError, match=rf"{weights[0].name} is damaged: .*; remove it"):
        maps.maps_study(QUICK, trainer(tmp_path))
    with pytest.raises(ValueError, match="seeds must be at least 2"):
        maps.maps_study(QUICK, trainer(tmp_path), seeds=1)


def test_the_share_of_a_map_on_the_object() -> None:
    class Network:
        """Its map of class 1 is positive in the left half alone, and negative elsewhere."""

        def cam(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            left = torch.tensor([[1.0, 1.0, -5.0, -5.0]]).expand(4, 4)
            return torch.where(labels[:, None, None] == 1, left, -torch.ones(4, 4))

    images = torch.zeros(2, 1, 4, 4)
    upper_left = torch.zeros(2, 4, 4, dtype=torch.bool)
    upper_left[:, :2, :2] = True
    labels = torch.tensor([1, 0])
    network: Any = Network()
    # A quarter of the picture, half of the map; the second picture has no positive part, and does not count.
    assert maps._share(network, images, labels, upper_left) == pytest.approx(0.5)
    assert maps._share(network, images, torch.tensor([0, 0]), upper_left) == 0.0
