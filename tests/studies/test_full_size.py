"""Networks at full size: forecast, trained once by however many processes, and gone on with after a kill."""

from __future__ import annotations

import multiprocessing
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from effkernels import studies
from effkernels.studies import forecast, full_size
from effkernels.studies.full_size import FullPictures, step_seconds
from effkernels.studies.grids import PAPER
from effkernels.train import loop
from studies import PLAIN, colours, little


def setting(folder: Path, **changes: Any) -> studies.Setting:
    options = {"batch": 10, "recipe": PLAIN, **changes}
    return studies.Setting.full(str(folder), little(), **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pixels or more: 60 pictures to train on and hold out, 10 to test with."""
    made = tmp_path_factory.mktemp("data")
    colours(made / "train", 30, (60, 48))
    colours(made / "test", 5, (60, 48))
    return made


def test_what_is_trained_on(folder: Path) -> None:
    given = setting(folder)
    assert (given.pictures, given.held_out) == (48, 12)
    base = given.base
    assert (base.largest, base.num_classes, base.in_channels) == (48, 2, 3)
    opened = FullPictures(given)
    used = [source.name(i) for source in (opened.data.train, opened.data.validation)
            for i in range(len(source))]  # fmt: skip
    assert len(set(used)) == 60
    fewer = FullPictures(setting(folder, pictures=20, split_seed=1))
    assert len(fewer.data.train) == 20
    assert {fewer.data.train.labels.count(label) for label in (0, 1)} == {10}
    pixels = opened.pixels_held_out(40, [0, 11])
    assert pixels.shape == (2, 3, 40, 40)
    assert 0 <= float(pixels.min()) < float(pixels.max()) <= 1


def test_networks_of_a_base(folder: Path) -> None:
    base = setting(folder).base
    scaled = PAPER.apply(base)
    assert scaled.config.resolution == round(32 * 1.15)
    assert studies.Architecture.from_json(scaled.to_json()) == scaled
    assert scaled.canonical() == scaled
    raw = little().scale(depth=1.2, width=1.1, resolution=1.15)
    assert base.cost(scaled).layers == base.cost(studies.Architecture(raw)).layers
    with pytest.raises(ValueError, match=r"at most 48, the pictures' own, got 51: begin below the"):
        base.scaled(resolution=1.6)
    gammas = {triple.gamma for triple in studies.grid(0.1, base.largest_factor)}
    assert max(gammas) == 1.5
    no_room = replace(base, largest=32)
    with pytest.raises(ValueError, match="leave resolution alone at the base, which has 32 pixels"):
        studies.points(targets=(2.0,), base=no_room)


def test_a_training_is_forecast_and_its_result_stored(folder: Path, tmp_path: Path) -> None:
    given = setting(folder, recipe=replace(PLAIN, epochs=8))
    training = studies.Training(given.base.network, given, 0, test=True)
    said: list[str] = []
    trainer = studies.Trainer(studies.Store(tmp_path / "trainings.jsonl"), announce=said.append)
    trainer.expect([training, replace(training, seed=1)])
    macs = given.base.cost(training.architecture).macs
    # Of 48 pictures 40 fill batches; the pictures held out are looked at after each epoch.
    whole = macs * (3 * 40 * 8 + 12 * 8 + 10)
    assert forecast.work(macs, given.to_json(), 10) == whole
    assert said[0].startswith(f"up to 2 trainings, {2 * whole / 1e12:.3g} * 10^12 multiply")
    assert "little (32 pixels) scaled up to 1 times" in said[1]
    assert said[2].startswith("memory: a step of 10 pictures needs about ")
    assert said[3].endswith("by steps of the network in the middle, timed now")
    (result,) = trainer.results([training])
    assert result["accuracy"] > 0.8
    assert result["test_accuracy"] > 0.8
    assert (result["macs"], result["test_pictures"]) == (macs, 10)
    assert not (tmp_path / "unfinished").exists()
    trainer.expect([training, replace(training, seed=1)])
    assert said[4].startswith("up to 1 training, ")
    assert said[-1].endswith("by the earlier trainings here")
    speed = forecast.speed([result], result["device"])
    assert speed == pytest.approx(macs * 3 * 40 * 8 / result["seconds"])
    assert forecast.speed([result]) is None, "small networks on a processor are another matter"


def test_the_forecast_counts_the_pictures_that_networks_see(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = setting(folder)
    seen = {True: 0, False: 0}
    forward = full_size.EfficientNet.forward

    def counted(model: Any, images: torch.Tensor) -> Any:
        seen[model.training] += len(images)
        return forward(model, images)

    monkeypatch.setattr(full_size.EfficientNet, "forward", counted)
    training = studies.Training(given.base.network, given, 0, test=True)
    full_size.train_full(training, FullPictures(given), tmp_path, studies.Machine())
    assert forecast.work(1, given.to_json(), 10) == 3 * seen[True] + seen[False]
    assert step_seconds(training, FullPictures(given), studies.Machine()) > 0


def test_it_goes_on_after_its_last_epoch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = setting(folder)
    training = studies.Training(given.base.network, given, 0)
    (whole,) = studies.Trainer(studies.Store(tmp_path / "whole.jsonl")).results([training])
    finish = loop._Training._finish

    def killed(self: Any, lr: float) -> None:
        finish(self, lr)
        raise KeyboardInterrupt

    trainer = studies.Trainer(studies.Store(tmp_path / "trainings.jsonl"))
    monkeypatch.setattr(loop._Training, "_finish", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.results([training])
    assert (tmp_path / "unfinished" / training.key / "resume.pt").exists()
    begun: list[int] = []

    def watched(self: Any, lr: float) -> None:
        begun.append(self.position.epoch)
        finish(self, lr)

    monkeypatch.setattr(loop._Training, "_finish", watched)
    (again,) = trainer.results([training])
    assert begun == [1], "the first epoch is not trained again"
    assert {k: again[k] for k in again if k != "seconds"} == {
        k: whole[k] for k in whole if k != "seconds"
    }


def work(data: Path, output: Path) -> None:
    given = setting(data)
    trainings = [studies.Training(given.base.network, given, seed) for seed in range(4)]
    studies.Trainer(studies.Store(output / "trainings.jsonl")).results(trainings)


def test_processes_share_a_folder_and_may_be_killed(folder: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")  # PyTorch's threads do not survive a fork
    first = context.Process(target=work, args=(folder, tmp_path))
    first.start()
    end = time.monotonic() + 100
    while not list(tmp_path.glob("unfinished/*/resume.pt")):
        assert time.monotonic() < end
        time.sleep(0.01)
    killing = threading.Timer(0.1, first.kill)  # while this process waits for it
    killing.start()
    work(folder, tmp_path)
    killing.join()
    lines = (tmp_path / "trainings.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 4
    assert not (tmp_path / "unfinished").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"held_out": 55}, "held_out must be at least 2 and leave a batch of 10 of the 60"),
        ({"pictures": 50}, "pictures must be at most 48, those that are not held out, got 50"),
        ({"batch": 0}, "batch must be a whole number of at least 2, got 0"),
    ],
)
def test_pictures_that_do_not_suffice(folder: Path, changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        setting(folder, **changes)


def test_a_step_that_does_not_fit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = setting(folder)
    training = studies.Training(given.base.network, given, 0)
    trainer = studies.Trainer(studies.Store(tmp_path / "t.jsonl"), announce=print)
    for free, hint in ((3_000_000, r"--batch-size \d would fit"), (9, "begin with fewer pixels")):
        monkeypatch.setattr(forecast, "free_memory", lambda device, free=free: free)
        with pytest.raises(ValueError, match=rf"of 10 pictures needs about .* are free: .*{hint}"):
            trainer.expect([training])


def test_unreadable_pictures(tmp_path: Path) -> None:
    data = colours(tmp_path / "data", 20, (60, 48))
    (data / "red" / "3.png").write_bytes(b"no picture")
    given = setting(data)
    noted: list[str] = []
    training = studies.Training(given.base.network, given, 0)
    machine = studies.Machine(note=noted.append)
    store = studies.Store(tmp_path / "trainings.jsonl")
    (result,) = studies.Trainer(store, machine=machine).results([training])
    assert 0 <= result["accuracy"] <= 1
    assert set(noted) == {
        f"cannot read picture '{data / 'red' / '3.png'}': not a picture in a format that Pillow reads"
    }
    strict = studies.Trainer(
        studies.Store(tmp_path / "others.jsonl"), machine=studies.Machine(bad_pictures=0)
    )
    with pytest.raises(ValueError, match="1 pictures cannot be read, more than --bad-pictures 0"):
        strict.results([training])
    for path in data.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="cannot read picture"):
        setting(data)


def test_maps_at_full_size(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = studies.Triple(1.0, 1.5, 1.4)
    monkeypatch.setattr(
        studies.maps, "five", lambda: {"base": studies.Triple(1, 1, 1), "wide": wide}
    )
    trainer = studies.Trainer(studies.Store(tmp_path / "trainings.jsonl"))
    document = studies.maps_study(setting(folder), trainer)
    assert studies.maps_study(setting(folder), trainer) == document
    assert document["object_pixels"] is None
    for picture in document["pictures"]:
        assert torch.tensor(picture["pixels"]).shape == (48, 48)
        sides = [torch.tensor(picture["maps"][way]["map"]).shape[0] for way in ("base", "wide")]
        assert sides == [4, 6]
