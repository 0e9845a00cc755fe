"""Studies on a folder of pictures, and what a study will cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from effkernels import studies
from effkernels.studies import maps
from effkernels.studies.forecast import forecast, speed, work
from studies import TINY, FakeTrainings, colours, trainer_in


def setting(folder: Path, **changes: object) -> studies.Setting:
    return replace(TINY, data=str(folder), pictures=30, held_out=20, batch=10, **changes)  # type: ignore[arg-type]


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    given = setting(colours(tmp_path))
    assert (given.base.num_classes, given.base.in_channels) == (2, 3)
    pictures = studies.Pictures(given)
    assert (pictures.classes, pictures.channels, pictures.largest) == (("green", "red"), 3, 28)
    images, labels = pictures.train(28)
    assert images.shape == (30, 3, 28, 28)
    assert images.mean((0, 2, 3)).abs().max() < 1e-4
    assert (images.std((0, 2, 3)) - 1).abs().max() < 1e-2
    held, held_labels = pictures.held_out(14)
    assert held.shape == (20, 3, 14, 14)
    assert torch.bincount(held_labels).tolist() == [10, 10]
    pixels = pictures.pixels_held_out(28)
    assert float(pixels[:, 2].max()) < 0.4, "the blue ends are cut off"
    assert (pixels[held_labels == 1, 0] > pixels[held_labels == 1, 1]).all()
    other = studies.Pictures(setting(tmp_path, split_seed=1))
    assert not torch.equal(other.train(14)[0], pictures.train(14)[0])
    assert torch.equal(studies.Pictures(given).train(14)[1], labels)
    with pytest.raises(ValueError, match=r"no test pictures: .* has no folders 'train' and 'test'"):
        pictures.test(14)


def test_too_many_held_out(tmp_path: Path) -> None:
    given = replace(setting(colours(tmp_path)), held_out=500)
    with pytest.raises(
        ValueError, match="held_out must be a share below 1 or a number of pictures"
    ):
        studies.Pictures(given)


def test_keys_of_a_folder(tmp_path: Path) -> None:
    network = studies.Triple(1.0, 1.0, 1.0).apply()
    one = studies.Training(network, setting(colours(tmp_path / "one")), 0)
    moved = studies.Training(network, setting(colours(tmp_path / "two")), 0)
    fewer = studies.Training(network, setting(colours(tmp_path / "three", 29)), 0)
    split = replace(one, setting=replace(one.setting, split_seed=1))
    assert one.key == moved.key
    assert len({one.key, fewer.key, split.key, studies.Training(network, TINY, 0).key}) == 4
    # Stored trainings have no seed of the split: it is named where it is not 0.
    assert "split_seed" not in one.setting.to_json()
    assert split.setting.to_json()["split_seed"] == 1


def test_maps_of_a_folder_have_no_share_on_an_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "five", lambda: {"base": studies.Triple(1.0, 1.0, 1.0)})
    given = setting(colours(tmp_path / "data"))
    document = studies.maps_study(
        given, studies.Trainer(studies.Store(tmp_path / "trainings.jsonl"))
    )
    assert document["object_pixels"] is None
    assert {model["object_share"] for model in document["models"]} == {None}
    assert [picture["class"] for picture in document["pictures"]] == ["green", "red"]
    assert "only where the background is black" in maps.page(json.loads(json.dumps(document)))


def test_networks_learn_colours_and_are_tested(tmp_path: Path) -> None:
    colours(tmp_path / "train")
    colours(tmp_path / "test", 5)
    long = setting(tmp_path, recipe=replace(TINY.recipe, epochs=20))
    training = studies.Training(studies.Triple(1.0, 1.0, 1.0).apply(), long, 0, test=True)
    result = studies.train_network(training, studies.Pictures(long))
    assert result["accuracy"] > 0.9
    assert result["test_accuracy"] > 0.9
    assert result["macs"] == training.architecture.cost(2, 3).macs
    (tmp_path / "test" / "yellow").mkdir()
    (tmp_path / "test" / "yellow" / "1.png").write_bytes((tmp_path / "test/red/1.png").read_bytes())
    with pytest.raises(ValueError, match="the test pictures have other classes"):
        studies.Pictures(replace(long)).test(14)


def test_forecasts() -> None:
    base = studies.Triple(1.0, 1.0, 1.0).apply()
    macs = base.cost(10, 1).macs
    whole = TINY.to_json()
    assert work(macs, whole) == macs * (3 * 200 + 100)
    assert work(macs, whole, 10_000) == macs * (3 * 200 + 100 + 10_000)
    row = {"macs": macs, "setting": whole, "test": False, "seconds": 2.0}
    assert speed([row, {**row, "seconds": 0.0}]) == work(macs, whole) / 2
    assert speed([]) is None
    training = studies.Training(base, TINY, 0)
    missing = [replace(training, seed=seed) for seed in range(60)]
    assert forecast(missing, [row]) == (
        f"up to 60 trainings, {60 * work(macs, whole) / 1e12:.3g} * 10^12 multiply-accumulates: about 2 minutes of "
        "processor time by the earlier ones here"
    )


def test_expectations_leave_out_what_is_there(tmp_path: Path, fake: FakeTrainings) -> None:
    said: list[str] = []
    trainer = trainer_in(tmp_path, announce=said.append)
    training = studies.Training(studies.Triple(1.0, 1.0, 1.0).apply(), TINY, 0)
    trainer.results([training])
    trainer.expect([training])
    assert not said
    trainer.expect([training, replace(training, seed=1), replace(training, seed=1)])
    assert len(said) == 1
    assert said[0].startswith("up to 1 training, ")
    trainer.expect([training, replace(training, seed=1)], [training] * 3)
    assert said[1].startswith("up to 4 trainings, ")
    trainer.expect([training], [training] * 3)
    assert len(said) == 2
