"""Layers on a GPU are timed in a CUDA graph of calls on alternating inputs; here with a fake GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cases.layers import STYLE, LayerCase
from benchmarks.cases.pointwise import PointwiseCase
from benchmarks.contestants import Contestant, contestants_in, ours
from benchmarks.harness import inputs, worker
from benchmarks.harness.device import Device
from benchmarks.harness.making import make
from benchmarks.harness.replay import InTurn, Replay
from benchmarks.harness.worker import Prepared, Worker
from specs.depthwise_conv_bn_act import Depthwise
from specs.pointwise_conv_bn_act import Pointwise

GPU = Device("cuda", "bfloat16")
SHAPE = Depthwise(2, 16, (5, 6), (3, 3), stride=(2, 2), padding=(1,) * 4, style=STYLE)
PROJECT = Pointwise(
    *(2, 16, 24, (5, 6)), gated=True, residual=True, activation="identity", style=STYLE
)
CASE, PRODUCT = LayerCase(SHAPE, GPU), PointwiseCase(PROJECT, GPU)
LAYERS = contestants_in("layers", "convolutions", kind="cuda")
PRODUCTS = contestants_in("layers", "products", kind="cuda")
NETWORKS = contestants_in("networks", kind="cuda")
MAP_BYTES = 2 * 16 * 5 * 6 * 2
COPIES = 4


class FakeGpu:
    """A GPU whose captures record calls, which a replay repeats."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream, self.capturing, self.broken = "default", False, False
        monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
        monkeypatch.setattr("torch.cuda.CUDAGraph", lambda: self)
        monkeypatch.setattr("torch.cuda.graph", self.graph)
        monkeypatch.setattr("torch.cuda.current_stream", lambda: self.stream)
        monkeypatch.setattr("torch.cuda.set_stream", lambda stream: setattr(self, "stream", stream))
        self.replays = 0

    @contextmanager
    def graph(self, graph: object, **_: str) -> Iterator[None]:
        """Like PyTorch's: if the capture fails, ending it fails too, and the stream stays current."""
        self.stream, self.capturing = "capture", True
        try:
            yield
        except Exception:
            raise RuntimeError("operation failed due to a previous error during capture") from None
        finally:
            self.capturing = False
        self.stream = "default"

    def replay(self) -> None:
        self.replays += 1


def eight_seconds_each(run: Callable[[], Any], timed: int) -> list[float]:
    for _ in range(timed):
        run()
    return [8.0] * timed


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """Compute the cases for a GPU on the CPU."""
    put = Device.put
    monkeypatch.setattr(Device, "put", lambda self, what: put(Device("cpu", self.type), what))
    monkeypatch.setattr(inputs, "ROTATED_BYTES", (COPIES - 1) * MAP_BYTES)
    monkeypatch.setitem(worker.CLOCKS, "cuda", eight_seconds_each)
    monkeypatch.setattr(worker, "launches", lambda run: 1)
    monkeypatch.setattr(worker, "peak_bytes", lambda run: 1000)
    return FakeGpu(monkeypatch)


def prepared(folder: Path, case: LayerCase, contestant: Contestant) -> tuple[Worker, Prepared]:
    make(str(folder), case)
    ours = Worker()
    return ours, ours.prepare(contestant, case, str(folder))


def test_calls_take_turns() -> None:
    seen: list[int] = []
    run = InTurn([lambda: seen.append(1), lambda: seen.append(2), lambda: seen.append(3)])
    for _ in range(5):
        run()
    assert seen == [1, 2, 3, 1, 2]


def test_all_calls_are_captured_and_the_last_one_answers(gpu: FakeGpu) -> None:
    seen: list[tuple[int, bool]] = []

    def call(number: int) -> int:
        seen.append((number, gpu.capturing))
        return number

    replay = Replay([lambda n=n: call(n) for n in range(4)])  # type: ignore[misc]
    assert seen == [(0, False), (1, False), *((n, True) for n in range(4))]
    assert (replay(), gpu.replays, len(seen)) == (3, 1, 6)


def test_a_capture_that_fails_says_why_and_leaves_its_stream(gpu: FakeGpu) -> None:
    def call() -> None:
        if gpu.capturing:
            raise ValueError("no such thing in a capture\nand more")

    with pytest.raises(RuntimeError, match=r"^ValueError: no such thing in a capture$"):
        Replay([call, call])
    assert gpu.stream == "default"


@pytest.mark.parametrize(
    ("case", "contestant"),
    [*((CASE, who) for who in LAYERS), *((PRODUCT, who) for who in PRODUCTS)],
    ids=lambda v: getattr(v, "name", v.suffix if isinstance(v, Device) else type(v).__name__),
)
def test_layers_on_a_gpu_are_timed_without_python(
    gpu: FakeGpu, tmp_path: Path, case: LayerCase, contestant: Contestant
) -> None:
    layer, found = prepared(tmp_path, case, contestant)
    assert found.status == "ok", found.reason
    assert found.details["seconds of a call"] == 8.0
    assert "not captured" not in found.details
    assert isinstance(layer._run, Replay)
    assert len(layer._run.calls) == COPIES
    before = gpu.replays
    assert layer.measure(3, 2 * COPIES + 1) == [8.0 / COPIES] * 3  # replays
    assert gpu.replays == before + 1 + 3
    layer.release()
    assert layer._calls == 1


def test_inputs_have_different_addresses(gpu: FakeGpu, tmp_path: Path) -> None:
    make(str(tmp_path), CASE)
    run = ours.layer(CASE, tmp_path).run
    assert isinstance(run, InTurn)
    assert len({call.keywords["x"].data_ptr() for call in run.calls}) == COPIES  # type: ignore[attr-defined]
    results = [call() for call in run.calls]
    assert all(torch.equal(result, results[0]) for result in results)


def test_calls_that_cannot_be_captured_are_timed_one_by_one(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(calls: object) -> Replay:
        raise RuntimeError("ValueError: synchronises")

    monkeypatch.setattr(worker, "Replay", refuse)
    layer, found = prepared(tmp_path, CASE, LAYERS[1])
    assert (found.status, found.details["not captured"]) == ("ok", "ValueError: synchronises")
    assert isinstance(layer._run, InTurn)
    assert layer.measure(1, 5) == [8.0] * 5
    assert layer.spent


def test_a_graph_that_computes_something_else_is_not_timed(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replay, "__call__", lambda self: self._result + 1)
    _, found = prepared(tmp_path, CASE, LAYERS[1])
    assert found.status == "mismatch"
    assert str(found.reason).startswith("in a CUDA graph: error")


def test_a_process_ends_after_a_capture_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = Worker()
    spent.spent = True
    monkeypatch.setattr(worker, "Worker", lambda: spent)
    ours, theirs = Pipe()
    for command in ("pace", "release", "pace"):
        ours.send((command, ()))
    worker.serve(theirs)
    assert ours.recv()[0] == "ok"
    assert not ours.poll()


def test_memory_is_counted_if_pytorch_allocates_it(gpu: FakeGpu) -> None:
    counted = {who.name: Worker._counted(who, lambda: None) for who in NETWORKS}
    unknown = {name for name, said in counted.items() if "peak_bytes" not in said}
    assert unknown >= {
        "effkernels-graph",
        "effkernels-fused-graph",
        "eager-channels_last-graph",
        "compile-reduce-overhead",
        "compile-max-autotune",
        "tensorrt",
    }
    assert not unknown & {"effkernels", "eager-channels_last", "compile-channels_last"}
    assert all(isinstance(counted[name]["no peak_bytes"], str) for name in unknown)
    assert counted["effkernels"] == {"launches": 1, "peak_bytes": 1000}
