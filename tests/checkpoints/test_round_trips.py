"""Weights of other packages, loaded here, saved in their format and loaded there: the same to the
last bit.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import nn

import effkernels
from effkernels.checkpoints import read_state_dict, save_checkpoint
from oracles import oracle

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def scrambled(model: Model) -> Model:
    """Make every floating-point value random and positive, so that it is also a valid variance."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1.0)
    return model


def assert_same_state(found: nn.Module, expected: nn.Module) -> None:
    wanted = expected.state_dict()
    assert found.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, wanted[key]) for key, value in found.state_dict().items())


@pytest.mark.parametrize(
    ("name", "suffix"), [("efficientnet_b0", "pth"), ("tf_efficientnet_lite0", "safetensors")]
)
def test_timm(name, suffix, tmp_path: Path):
    timm = oracle("timm")
    theirs = scrambled(timm.create_model(name))
    ours = effkernels.create_model(
        name.removeprefix("tf_"), weights=theirs.state_dict(), source=f"timm/{name}"
    )
    path = tmp_path / f"saved.{suffix}"
    save_checkpoint(ours, path, format="timm")
    twin = read_state_dict(path).record["twin"]
    assert twin == f"timm/{name}"
    again = timm.create_model(twin.removeprefix("timm/"))
    timm.models.load_checkpoint(again, str(path))
    assert_same_state(again, theirs)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b5"])
def test_torchvision(name, tmp_path: Path):
    models = oracle("torchvision.models")
    theirs = scrambled(getattr(models, name)())
    ours = effkernels.create_model(name, weights=theirs.state_dict())
    save_checkpoint(ours, tmp_path / "saved.pth", format="torchvision")
    again = getattr(models, name)()
    again.load_state_dict(torch.load(tmp_path / "saved.pth", weights_only=True))
    assert_same_state(again, theirs)


def test_lukemelas(tmp_path: Path):
    build = oracle("efficientnet_pytorch").EfficientNet.from_name
    theirs = scrambled(build("efficientnet-b1"))
    ours = effkernels.create_model("efficientnet_b1", weights=theirs.state_dict())
    save_checkpoint(ours, tmp_path / "saved.pth", format="lukemelas")
    again = build("efficientnet-b1")
    again.load_state_dict(torch.load(tmp_path / "saved.pth", weights_only=True))
    assert_same_state(again, theirs)


def test_through_every_format(tmp_path: Path):
    ours = scrambled(effkernels.create_model("efficientnet_b0", padding="same", num_classes=10))
    original = copy.deepcopy(ours)
    for fmt in ("timm", "lukemelas", "effkernels", "torchvision", "timm"):
        path = tmp_path / f"{fmt}.pth"
        save_checkpoint(ours, path, format=fmt, allow_semantics_change=fmt == "torchvision")
        ours = effkernels.create_model("efficientnet_b0", weights=path, num_classes=10)
    assert_same_state(ours, original)
    assert ours.config == original.config
