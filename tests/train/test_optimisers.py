"""What learns, at which rate, and by which optimiser."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from effkernels import train
from effkernels.models import EfficientNet
from effkernels.train.building import new_model
from effkernels.train.optimisers import (
    freeze,
    make_optimizer,
    make_scheduler,
    parameter_groups,
    training_mode,
)
from oracles import oracle
from training import MODEL


def model() -> EfficientNet:
    return new_model(MODEL, 3, width=0.25, depth=0.25)


def recipe(**changes: Any) -> train.Recipe:
    return train.recipe_for(MODEL, "sgd", **changes)


def test_batch_norm_is_not_decayed_and_biases_as_the_recipe_says() -> None:
    network = new_model("efficientnet_b0", 3, width=0.25, depth=0.25)
    names = {id(p): name for name, p in network.named_parameters()}
    for biases in (True, False):
        groups = parameter_groups(network, recipe(decay_biases=biases), 0.1)
        decays = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
        assert set(decays) == set(names.values())
        for name, decay in decays.items():
            norm = ".bn." in name
            decayed = not norm and (biases or not name.endswith("bias"))
            assert (decay > 0) == decayed, name
        assert any("squeeze_excite" in name and name.endswith("bias") for name in decays)


@pytest.mark.parametrize("frozen", [None, 0, 3, 8])
def test_frozen_parts(frozen: int | None) -> None:
    network, own = model(), recipe(freeze=frozen)
    freeze(network, own)
    training_mode(network, own)
    learning = {
        name.partition(".classifier")[0]
        for name, p in network.named_parameters()
        if p.requires_grad
    }
    still = {
        n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d) and not m.training
    }
    parts = [] if frozen is None else ["stem.", *(f"stages.{i}." for i in range(frozen))]
    if frozen == 8:
        assert learning == {"classifier.weight", "classifier.bias"}
        assert all(not m.training for m in (network.stem, *network.stages, network.head))
        return
    assert all(name.startswith(tuple(parts)) for name in still)
    assert all(not name.startswith(tuple(parts)) for name in learning)
    assert bool(still) == bool(parts)


def test_frozen_batch_norm() -> None:
    for mode, learns in (("batch", True), ("running", True), ("frozen", False)):
        network, own = model(), recipe(batch_norm=mode)
        freeze(network, own)
        training_mode(network, own)
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(m.training == (mode == "batch") for m in norms)
        assert all(p.requires_grad == learns for m in norms for p in m.parameters())
    with pytest.raises(ValueError, match="freeze must be at most 8"):
        freeze(model(), recipe(freeze=9))


def test_nothing_to_learn_is_an_error() -> None:
    network = model().requires_grad_(False)
    with pytest.raises(ValueError, match="everything is frozen"):
        make_optimizer(network, recipe(), 64)


def test_layer_wise_rates() -> None:
    oracle("timm")
    from timm.optim import param_groups_layer_decay

    network = new_model("efficientnet_b0", 3)
    names = {id(p): name for name, p in network.named_parameters()}
    groups = parameter_groups(network, recipe(layer_decay=0.8), 1.0)
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    # timm's own grouping of the same model.
    theirs = {
        names[id(p)]: group["lr_scale"]
        for group in param_groups_layer_decay(network, layer_decay=0.8)
        for p in group["params"]
    }
    assert rates == pytest.approx(theirs)
    assert rates["classifier.weight"] == 1.0
    assert rates["stages.6.0.project.conv.weight"] == rates["head.conv.weight"]
    assert rates["head.conv.weight"] == pytest.approx(0.8)
    assert rates["stages.5.3.project.conv.weight"] == pytest.approx(
        0.8 * rates["stages.6.0.project.conv.weight"]
    )
    # The stem, 16 blocks, the classifier.
    assert rates["stem.conv.weight"] == pytest.approx(0.8**17)


def test_group_matcher_by_stages() -> None:
    models = oracle("timm.models")
    network = new_model("efficientnet_b0", 3)
    groups = models.group_parameters(network, network.group_matcher(coarse=True))
    assert len(groups) == 1 + 7 + 1


def test_the_papers_optimiser_is_tensorflows() -> None:
    oracle("timm")
    network = model()
    optimizer = make_optimizer(network, train.recipe_for(MODEL), 128)
    assert type(optimizer).__name__ == "RMSpropTF"
    group = optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.008)
    assert (group["alpha"], group["momentum"], group["eps"]) == (0.9, 0.9, 1e-3)
    assert group["weight_decay"] == 1e-5
    with pytest.raises(ValueError, match="optimizer must be one of sgd, adamw, rmsproptf"):
        make_optimizer(network, train.recipe_for(MODEL, optimizer="nonesuch"), 128)


def test_adamw_and_sgd() -> None:
    sgd = make_optimizer(model(), recipe(lr=0.4, lr_batch=100), 50)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.param_groups[0]["lr"] == pytest.approx(0.2)
    assert sgd.param_groups[0]["nesterov"]
    adamw = make_optimizer(model(), train.recipe_for(MODEL, "adamw", eps=1e-6), 50)
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["eps"] == 1e-6


def test_the_schedule_sets_each_step() -> None:
    own = recipe(schedule="constant", warmup_epochs=2.0, lr=1.0, lr_batch=None)
    optimizer = make_optimizer(model(), own, 8)
    scheduler = make_scheduler(optimizer, own, 2)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
