"""Choosing configurations by measuring, with a clock that the test controls."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed")

from effkernels._backends.triton import (  # noqa: E402
    conv_bn_act,
    depthwise_conv_bn_act,
    elementwise,
    pointwise_conv_bn_act,
    squeeze_excite,
    squeeze_excite_gate,
    tuning,
)
from effkernels._backends.triton.launch import share  # noqa: E402
from effkernels._backends.triton.tuning import Tuner, autotune_requested, cache_file, tuned  # noqa: E402

Config = tuple[int, str]
CANDIDATES: list[Config] = [(1, "slow"), (2, "fast"), (3, "fails"), (4, "as fast")]
TIMES = {"slow": 3.0, "fast": 1.0, "as fast": 1.0}


class Bench:
    """Starts configurations, and reports the time that the test sets for the last one started."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def start(self, config: Config) -> None:
        if config[1] == "fails":
            raise triton.OutOfResources(300_000, 232_448, "shared memory")
        self.started.append(config[1])

    def measure(self, run: Callable[[], object]) -> float:
        run()
        return TIMES[self.started[-1]]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def pick(tuner: Tuner, bench: Bench, key: str = "op 1", **options: object) -> Config:
    arguments = {"chosen": CANDIDATES[0], "candidates": CANDIDATES, "start": bench.start}
    return tuner.pick(key, **(arguments | options))


def test_the_fastest_is_picked_and_measured_once(tmp_path: Path, bench: Bench) -> None:
    tuner = Tuner(tmp_path / "new" / "file.json", bench.measure)
    assert pick(tuner, bench) == (2, "fast")
    count = len(bench.started)
    assert count == 6  # to compile each once, and to measure each once
    assert pick(tuner, bench) == (2, "fast")
    assert len(bench.started) == count
    pick(tuner, bench, "op 2")
    assert len(bench.started) == 2 * count
    assert [file.name for file in tuner.path.parent.iterdir()] == ["file.json"]


def test_picks_are_kept_for_the_next_process(tmp_path: Path, bench: Bench) -> None:
    path = tmp_path / "file.json"
    pick(Tuner(path, bench.measure), bench)
    bench.started.clear()
    again = Tuner(path, bench.measure)
    assert pick(again, bench) == (2, "fast")
    assert bench.started == []
    # A list of candidates without the stored one: measured again.
    assert pick(again, bench, candidates=CANDIDATES[:1]) == (1, "slow")


def test_choices_of_other_processes_are_kept(tmp_path: Path, bench: Bench) -> None:
    path = tmp_path / "file.json"
    one, other = Tuner(path, bench.measure), Tuner(path, bench.measure)
    pick(one, bench, "op 1")
    pick(other, bench, "op 2")
    assert set(json.loads(path.read_text())) == {"op 1", "op 2"}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"op 1": "x"}', '{"op 1": [9, "old"]}'])
def test_unusable_files_count_as_empty(tmp_path: Path, bench: Bench, content: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    assert pick(Tuner(path, bench.measure), bench) == (2, "fast")
    assert json.loads(path.read_text()) == {"op 1": [2, "fast"]}


def test_a_folder_that_cannot_be_written_is_reported_once(
    tmp_path: Path, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    tuner = Tuner(tmp_path / "file" / "picks.json", bench.measure)
    with caplog.at_level(logging.WARNING, "effkernels"):
        for key in ("op 1", "op 2"):
            assert pick(tuner, bench, key) == (2, "fast")
    (line,) = (record.message for record in caplog.records)
    assert line.startswith(f"EFFKERNELS_AUTOTUNE: {tuner.path} cannot be written")


def test_if_no_candidate_runs_the_default_is_used(tmp_path: Path, bench: Bench) -> None:
    tuner = Tuner(tmp_path / "file.json", bench.measure)
    assert pick(tuner, bench, candidates=CANDIDATES[2:3]) == CANDIDATES[0]


def test_other_errors_are_not_hidden(tmp_path: Path, bench: Bench) -> None:
    def broken(config: Config) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        pick(Tuner(tmp_path / "file.json", bench.measure), bench, start=broken)


def test_ops_called_while_measuring_may_be_tuned_too(tmp_path: Path, bench: Bench) -> None:
    tuner = Tuner(tmp_path / "file.json", bench.measure)

    def start(config: Config) -> None:
        pick(tuner, bench, "part")
        bench.start(config)

    assert pick(tuner, bench, "whole", start=start) == (2, "fast")
    assert set(json.loads(tuner.path.read_text())) == {"part", "whole"}


def test_without_measuring_the_stored_choice_runs(tmp_path: Path, bench: Bench) -> None:
    tuner = Tuner(tmp_path / "file.json", bench.measure)
    assert pick(tuner, bench, measure=False) == CANDIDATES[0]
    assert bench.started == []
    pick(tuner, bench)
    assert pick(tuner, bench, measure=False) == (2, "fast")


def test_threads_measure_one_after_the_other(tmp_path: Path, bench: Bench) -> None:
    tuner = Tuner(tmp_path / "file.json", bench.measure)
    threads = [threading.Thread(target=pick, args=(tuner, bench)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bench.started) == 6


def test_location_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EFFKERNELS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    described = "NVIDIA H200, 9.0, driver 580"
    file = cache_file(described)
    assert file.parent == tmp_path / "xdg" / "effkernels"
    assert file.name.startswith("nvidia-h200-")
    assert cache_file(described + ".1") != file
    monkeypatch.setenv("EFFKERNELS_CACHE", str(tmp_path / "own"))
    assert cache_file(described).parent == tmp_path / "own"


class OnGpu:
    """The attributes of a tensor on the first GPU that tuning reads."""

    device, dtype, is_cuda = torch.device("cuda", 0), torch.bfloat16, True

    def __init__(self, *shape: int) -> None:
        self.shape = torch.Size(shape)
        self.numel = self.shape.numel


def test_nothing_is_measured_unless_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("", False), ("0", False), ("1", True), ("on", True)):
        monkeypatch.setenv("EFFKERNELS_AUTOTUNE", value)
        autotune_requested.cache_clear()
        assert autotune_requested() == expected
        assert tuning.tuning(OnGpu(2, 3)) == expected
        # Not for CPU tensors in the interpreter either, nor for empty tensors.
        assert not tuning.tuning(torch.ones(2, 3))
        assert not tuning.tuning(OnGpu(0, 3))
    autotune_requested.cache_clear()


@pytest.mark.parametrize("capturing", [False, True])
def test_the_key_and_whether_to_measure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bench: Bench, capturing: bool
) -> None:
    """Nothing is measured while a graph is captured, which would record it; shape and dtype are in the
    key.
    """
    tuner = Tuner(tmp_path / "file.json", bench.measure)
    monkeypatch.setattr(tuning, "tuner", lambda index: tuner if index == 0 else None)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    found = tuned(OnGpu(2, 3), ("op", 7), CANDIDATES[0], CANDIDATES, bench.start)
    assert found == (CANDIDATES[0] if capturing else (2, "fast"))
    if not capturing:
        assert list(json.loads(tuner.path.read_text())) == ["op 7 torch.bfloat16 2 3"]


X, W = torch.empty(1, 32, 9, 9).half(), torch.empty(8, 32).half()
NORM = (*(None,) * 5, 0.0)
WINDOW = ((1, 1), (1, 1, 1, 1), (1, 1), "silu")
GATE = (W, None, W.t(), None, "silu")
OPS: dict[str, Callable[[], object]] = {
    "pointwise": lambda: pointwise_conv_bn_act.pointwise_conv_bn_act(
        X, W, *NORM, None, None, "silu"
    ),
    "pointwise pool": lambda: pointwise_conv_bn_act.pointwise_conv_bn_act_pool(X, W, *NORM, "silu"),
    "pointwise squeeze": lambda: pointwise_conv_bn_act.pointwise_conv_bn_act_squeeze(
        X, W, *NORM, "silu"
    ),
    "depthwise": lambda: depthwise_conv_bn_act.depthwise_conv_bn_act(
        X, torch.empty(32, 1, 3, 3).half(), *NORM, *WINDOW
    ),
    "depthwise pool": lambda: depthwise_conv_bn_act.depthwise_conv_bn_act_pool(
        X, torch.empty(32, 1, 5, 5).half(), *NORM, *WINDOW
    ),
    "convolution": lambda: conv_bn_act.conv_bn_act(
        X[:, :3], torch.empty(8, 3, 3, 3).half(), *NORM, *WINDOW, None, None
    ),
    "gate": lambda: squeeze_excite_gate.squeeze_excite_gate(torch.empty(2, 32), *GATE),
    "layer": lambda: squeeze_excite.squeeze_excite(X, *GATE),
}


@pytest.mark.parametrize("name", OPS)
def test_every_op_runs_with_the_chosen_configuration(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    launches: list[str] = []
    asked: list[tuple[str, ...]] = []

    def launch(kernel: Any, programs: int, _: Any, constants: Any, **options: int) -> None:
        launches.append(f"{kernel.__name__} {programs} {constants} {options}")

    def started(start: Callable[[Any], object], config: Any) -> list[str]:
        launches.clear()
        start(config)
        return launches.copy()

    def fake(x: Any, key: Any, chosen: Any, found: Any, start: Callable[[Any], object]) -> Any:
        assert chosen in found
        if key[0] == "gate" and name == "layer":
            return chosen
        asked.append(key)
        each = [started(start, config) for config in found]
        assert len({str(one) for one in each}) == len(found) > 1
        expected[:] = each[-1]
        launches.clear()
        return found[-1]

    expected: list[str] = []
    modules = (conv_bn_act, depthwise_conv_bn_act, pointwise_conv_bn_act)
    modules += (squeeze_excite, squeeze_excite_gate)
    for module in (*modules, elementwise):
        monkeypatch.setattr(module, "launch", launch)
    for module in modules:
        monkeypatch.setattr(module, "tuning", lambda _: True)
        monkeypatch.setattr(module, "tuned", fake)
    OPS[name]()
    assert len(asked) == 1
    # The kernel that finishes means is not tuned.
    assert expected
    assert launches[: len(expected)] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_default_is_among_the_candidates(dtype: torch.dtype) -> None:
    choose, candidates = pointwise_conv_bn_act.choose, pointwise_conv_bn_act.candidates
    for rows in (49, 3000, 10**6):
        for c_in in (1, 16, 40, 112, 128, 1152):
            for c_out in (16, 40, 96, 1280):
                found = candidates(c_in, dtype)
                assert choose(rows, c_in, c_out, dtype) in found
                assert all(not c.one_k or c.block_k >= c_in for c in found)


def test_parts_are_shared_so_that_programs_fill_a_gpu() -> None:
    assert share(7, 1) == (1, 7)
    assert share(49, 2048) == (49, 1)
    assert share(10, 256) == (3, 4)


@pytest.mark.parametrize(
    ("size", "tile"),
    [
        ((128, 480, 14, 14), (7, 8, 64)),  # no row overhangs the map
        ((128, 192, 95, 95), (4, 16, 64)),
        ((1, 480, 14, 14), (2, 8, 32)),  # enough programs for one image
    ],
)
def test_depthwise_tiles_fit_the_map(
    size: tuple[int, int, int, int], tile: tuple[int, int, int]
) -> None:
    assert depthwise_conv_bn_act.choose((3, 3), (1, 1), (1, 1), size)[:3] == tile
