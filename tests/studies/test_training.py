"""The small setting: networks, pictures, and trainings that depend on their seed alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from effkernels import studies
from effkernels.models import StageConfig
from effkernels.nn import MBConv, SqueezeExcite
from effkernels.studies.training import _by_layers, one_thread
from effkernels.train.sources import fashion_mnist
from studies import TINY, stripes, tiny_pictures


def base(**changes: float) -> studies.Architecture:
    return studies.Architecture(studies.small_config(**changes))  # type: ignore[arg-type]


def test_one_network_has_one_name() -> None:
    # 1.1 and 1.3 round to the same depth; a width of 1.02 changes none of these channels.
    assert base(depth=1.1).to_json() == base(depth=1.3, width=1.02).to_json()
    assert base(depth=1.1).to_json() != base().to_json()
    for one in (base(width=1.4, depth=1.6, resolution=17), replace(base(), no_skip=(1, 2))):
        again = studies.Architecture.from_json(one.to_json())
        assert again == one.canonical()
        shapes = [[p.shape for p in a.build(10, 1).parameters()] for a in (one, again)]
        assert shapes[0] == shapes[1]
        assert one.cost(10, 1).macs == again.cost(10, 1).macs
    # The only block of stage 0 changes the size: there is nothing to add.
    assert replace(base(), no_skip=(0,)).to_json() == base().to_json()


def test_blocks_without_their_input() -> None:
    torch.manual_seed(0)
    model = replace(base(), no_skip=(1,)).build(10, 1).eval()
    block = model.stages[1][1]  # type: ignore[index]
    assert isinstance(block, MBConv)
    x = torch.randn(2, block.project.conv.weight.shape[0], 7, 7)
    assert block.expand is not None
    assert block.squeeze_excite is not None
    wanted = block.project(block.squeeze_excite(block.depthwise(block.expand(x))))
    torch.testing.assert_close(block(x), wanted)
    with torch.no_grad():
        for _ in range(20):  # statistics that pass the signal on
            model.train()(torch.randn(16, 1, 14, 14))
        plain = base().build(10, 1).eval()
        plain.load_state_dict(model.state_dict())
        layers = copy.deepcopy(model).eval()
        for module in layers.modules():
            if isinstance(module, torch.nn.Conv2d):  # what is hooked runs layer by layer
                module.register_forward_hook(lambda *_: None)
        image = torch.randn(4, 1, 14, 14)
        logits = model.eval()(image)
        torch.testing.assert_close(logits, layers(image))
        assert (logits - plain(image)).abs().max() > 1e-3  # rounding differs by 1e-6


def test_networks_that_do_not_do() -> None:
    with pytest.raises(
        ValueError, match="resolution must be at most 28, the pictures' own, got 29"
    ):
        base(resolution=29)
    with pytest.raises(ValueError, match="stages must reduce at most twice"):
        studies.small_config((StageConfig(1, 3, 2, 1, 8),) * 3)
    with pytest.raises(ValueError, match="data must be 'fashion-mnist'"):
        studies.Setting("cifar")
    with pytest.raises(ValueError, match="pictures=10 are fewer than a batch of 50"):
        studies.Setting(pictures=10)
    with pytest.raises(
        ValueError, match="pictures=221 are more than the 220 that are not held out"
    ):
        studies.Pictures(replace(TINY, pictures=221), stripes())


def test_pictures_of_a_setting() -> None:
    opened = []
    pictures = studies.Pictures(TINY, stripes(), lambda: opened.append(1) or stripes(1))  # type: ignore[func-returns-value]
    images, labels = pictures.train(14)
    assert images.shape == (200, 1, 14, 14)
    held, held_labels = pictures.held_out(28)
    assert torch.bincount(held_labels).tolist() == [50, 50]
    whole, _ = pictures.train(28)
    # Half the side is the mean of four pixels.
    torch.testing.assert_close(images, torch.nn.functional.avg_pool2d(whole, 2))
    assert pictures.train(17)[0].shape == (200, 1, 17, 17)
    same = (whole[:, None] == held[None]).flatten(2).all(2)
    assert not same.any(), "a picture is trained on and held out"
    assert not opened
    assert len(pictures.test(14)[1]) == 320
    assert opened
    with pytest.raises(ValueError, match="resolution must be at most 28"):
        pictures.train(30)
    again, labels_again = studies.Pictures(TINY, stripes()).train(14)
    assert torch.equal(images, again)
    assert torch.equal(labels, labels_again)


def test_trainings_learn_and_depend_on_their_seed_alone() -> None:
    pictures = tiny_pictures()
    training = studies.Training(base(), TINY, 0)
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = studies.train_network(training, pictures)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.manual_seed(6)
    again = studies.train_network(training, tiny_pictures())
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    assert "test_accuracy" not in first
    assert first["macs"] == base().cost(2, 1).macs
    other = studies.train_network(replace(training, seed=1), pictures)
    assert other["loss"] != first["loss"]
    longer = replace(TINY, recipe=replace(TINY.recipe, epochs=6))
    learnt = studies.train_network(studies.Training(base(), longer, 0, test=True), pictures)
    assert learnt["accuracy"] > 0.9
    assert learnt["test_accuracy"] > 0.9


def test_keys_are_of_what_decides_the_result() -> None:
    training = studies.Training(base(depth=1.1), TINY, 0)
    assert training.key == studies.Training(base(depth=1.3), TINY, 0).key
    elsewhere = replace(TINY, data="fashion-mnist:/elsewhere")
    assert training.key == replace(training, setting=elsewhere).key
    others = [
        replace(training, seed=1),
        replace(training, test=True),
        replace(training, architecture=base()),
        replace(training, setting=replace(TINY, pictures=180)),
        replace(training, setting=replace(TINY, recipe=replace(TINY.recipe, lr=0.02))),
    ]
    assert len({training.key, *(other.key for other in others)}) == 6


def test_squeeze_excitation_by_layers_is_the_same() -> None:
    torch.manual_seed(0)
    model = base().build(10, 1).eval()
    image = torch.randn(3, 1, 14, 14)
    with one_thread(), torch.no_grad():
        before = model(image)
        _by_layers(model)
        assert not any(type(module) is SqueezeExcite for module in model.modules())
        torch.testing.assert_close(model(image), before)


def test_fashion_mnist_as_it_is() -> None:
    try:
        fashion_mnist("fashion-mnist", "train")
    except ValueError:
        pytest.skip("needs Fashion-MNIST (Debian's dataset-fashion-mnist)")
    pictures = studies.Pictures(studies.Setting(pictures=1000))
    images, labels = pictures.train(14)
    assert len(pictures.held_out(14)[1]) == 5000
    assert torch.bincount(pictures.held_out(14)[1]).tolist() == [500] * 10
    assert abs(float(images.mean())) < 0.05
    assert 0.7 < float(images.std()) < 1.1
    assert len(torch.unique(labels)) == 10
