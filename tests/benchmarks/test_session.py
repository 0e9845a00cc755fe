"""From a case to its row: first checked, then timed; in this process, and in separate processes."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from benchmarks.cases import Case, Suite
from benchmarks.cases.layers import STYLE, LayerCase
from benchmarks.cases.networks import NetworkCase
from benchmarks.cases.pointwise import PointwiseCase
from benchmarks.contestants import Contestant, Missing, all_contestants, contestants_in
from benchmarks.harness import startup
from benchmarks.harness.alternate import EntrantError, Timing
from benchmarks.harness.device import Device
from benchmarks.harness.machine import Limits
from benchmarks.harness.making import make
from benchmarks.harness.problem import Answer, Problem, checked_images, mismatch
from benchmarks.harness.processes import Process
from benchmarks.harness.session import REFERENCE, Session
from benchmarks.harness.worker import Worker, error_text, resolve
from benchmarks.report.results import Report, Row
from benchmarks.run import run
from specs.conv_bn_act import Dense
from specs.depthwise_conv_bn_act import Depthwise
from specs.mbconv import Block
from specs.pointwise_conv_bn_act import Pointwise
from specs.squeeze_excite import Squeeze

# With the styles that contestants expect.
SHAPE = Depthwise(5, 8, (6, 7), (3, 3), stride=(2, 2), padding=(1,) * 4, style=STYLE)
CASE = LayerCase(SHAPE)
HALVES = Device("cpu", "bfloat16")
LIMITS = Limits(((1000, 2e9), (1_000_000, 1e9)), 1e9)


def toy(name: str, build: str, **options: Any) -> Contestant:
    return Contestant(name, name, f"toy_contestants:{build}", tuple(options.items()))


RIGHT = Contestant("effkernels", "effkernels", "toy_contestants:right")
TOYS = (
    RIGHT,
    toy("wrong", "right", factor=1.001),
    toy("absent", "absent"),
    toy("broken", "broken"),
)


def suite(*who: Contestant) -> Suite:
    timing = Timing(turn=1e-4, budget=0.0, settle=0.0, min_rounds=3)
    return Suite("depthwise", "Depthwise", (CASE,), who, timing, "layers")


class InThisProcess(Process):
    """Runs commands in this process."""

    def __init__(self, name: str, log: Path) -> None:
        super().__init__(name, log)
        self.worker = Worker()

    def start(self) -> None:
        pass

    def ask(self, command: str, *arguments: Any) -> Any:
        return getattr(self.worker, command)(*arguments)

    def release(self) -> None:
        self.worker.release()


@pytest.fixture(autouse=True)
def importable_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", str(folder))
    path = folder / "toy_contestants.py"
    spec = importlib.util.spec_from_file_location("toy_contestants", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "toy_contestants", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(Session, "limits", lambda _, device: LIMITS)


def test_only_right_results_are_timed() -> None:
    said: list[str] = []
    with Session(make=InThisProcess, say=said.append) as session:
        row = session.measure(suite(*TOYS), CASE)
    ours, wrong, absent, broken = row.outcomes
    assert ours.status == "ok"
    assert len(ours.rounds) == 3
    assert ours.error is not None
    assert ours.allowed is not None
    assert ours.error <= ours.allowed
    assert (wrong.status, wrong.rounds) == ("mismatch", [])
    assert wrong.reason is not None
    assert "allowed" in wrong.reason
    assert (absent.status, absent.reason) == ("missing", "toys are not installed")
    assert (broken.status, broken.reason) == ("failed", "RuntimeError: no such layer")
    assert any("absent: missing" in line for line in said)
    assert row.bound == pytest.approx(row.bytes / 1e9)
    assert not session.folder.exists()


def test_a_report_has_the_limits_of_its_own_type(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_report: Callable[..., Report],
    network_row: Row,
) -> None:
    fast = dataclasses.replace(LIMITS, flops=7e9)
    monkeypatch.setattr(Session, "limits", lambda _, device: fast if device == HALVES else LIMITS)
    monkeypatch.setattr(Session, "measure", lambda *_: network_row)
    report = make_report()
    report.settings = dataclasses.asdict(CASE.device)
    for device in (CASE.device, HALVES):
        case = dataclasses.replace(CASE, device=device)
        with Session(make=InThisProcess) as session:
            one = dataclasses.replace(suite(RIGHT), cases=(case,))
            run(report, tmp_path / "report.json", session, [one], lambda _: None)
    assert report.limits == dataclasses.asdict(LIMITS)


def test_a_run_keeps_every_row_and_measures_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_report: Callable[..., Report]
) -> None:
    path, measured = tmp_path / "report.json", []
    other = LayerCase(dataclasses.replace(SHAPE, n=1))
    both = suite(RIGHT)
    both = dataclasses.replace(both, cases=(CASE, other))
    measure = Session.measure

    def counted(session: Session, which: Suite, case: LayerCase) -> Any:
        if case == other and not measured[1:]:
            measured.append(case)
            raise KeyboardInterrupt
        measured.append(case)
        return measure(session, which, case)

    monkeypatch.setattr(Session, "measure", counted)
    with Session(make=InThisProcess) as session:
        with pytest.raises(KeyboardInterrupt):
            run(make_report(), path, session, [both], lambda _: None)
        assert [row.key for row in Report.load(path).rows] == [CASE.key]
        run(Report.load(path), path, session, [both], lambda _: None)
        assert [row.key for row in Report.load(path).rows] == [CASE.key, other.key]
        wider = dataclasses.replace(both, cases=(CASE,), contestants=TOYS)
        run(Report.load(path), path, session, [wider], lambda _: None)
    assert measured == [CASE, other, other, CASE]  # measured again with the missing contestants
    assert {row.key: len(row.outcomes) for row in Report.load(path).rows} == {
        other.key: 1,
        CASE.key: 4,
    }


def test_contestants_in_processes_of_their_own() -> None:
    def make(name: str, log: Path) -> Process:
        return (InThisProcess if name == REFERENCE else Process)(name, log)

    with Session(make=make) as session:
        row = session.measure(suite(RIGHT, toy("dying", "dying")), CASE)
        ours, dying = row.outcomes
        assert ours.status == "ok", ours.reason
        assert len(ours.rounds) == 3
        assert dying.status == "failed"
        assert dying.reason == "its process ended with 7: out of toys"
        process = session._processes.of("effkernels")
        with pytest.raises(EntrantError, match="nothing was prepared"):
            process.measure(0, 1)  # the session has released it
        assert process.prepare(RIGHT, CASE, session.folder).status == "ok"
        before = process.cpu_seconds()
        assert before > 0.0
        process.patience = 0.0
        with pytest.raises(EntrantError, match="no answer within 0 s"):
            process.measure(0, 100)


@pytest.mark.parametrize(
    "contestant",
    list(all_contestants()),
    ids=lambda c: f"{c.name}-{c.build}",
)
def test_every_contestant_can_be_built(contestant: Contestant) -> None:
    build, options = resolve(contestant.build), dict(contestant.options)
    given = (None,) * (3 if contestant.build.endswith("startup:measure") else 2)
    inspect.signature(build).bind(*given, **options)
    assert contestant.ours == contestant.name.startswith("effkernels")


def test_the_tolerance_is_that_of_the_tests() -> None:
    exact = torch.tensor([1.0, -4.0], dtype=torch.float64)
    eager = torch.tensor([1.0, -4.0]) + 2.0**-20
    answer = Answer(exact, eager, magnitude=8.0, depth=4)
    eps = 2.0**-23
    assert answer.allowed == pytest.approx(2 * 2.0**-20 + 2 * eps * 8.0 + eps / 2 * 4.0)
    right = (exact + answer.allowed * 0.9).float()
    assert mismatch(right, exact, answer.allowed) is None
    assert "error" in (mismatch(exact + 2 * answer.allowed, exact, answer.allowed) or "")
    assert "error inf" in (mismatch(exact * float("nan"), exact, answer.allowed) or "")
    assert "shape" in (mismatch(exact[:1], exact, answer.allowed) or "")


@pytest.mark.parametrize(("batch", "images"), [(1, [0]), (3, [0, 1, 2]), (16, [0, 8, 15])])
def test_images_that_are_checked(batch: int, images: list[int]) -> None:
    assert checked_images(batch) == images


def test_a_problem_is_the_same_whoever_makes_it(tmp_path: Path) -> None:
    make = resolve("benchmarks.harness.making:make")
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        make(str(tmp_path / name), CASE)
        torch.rand(3)
        contents.append(Problem(tmp_path / name, CASE).load())
    first, second = contents
    for ours, theirs in zip(*(tree_leaves(content["inputs"]) for content in contents), strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    assert first["inputs"]["x"].count_nonzero() == first["inputs"]["x"].numel()
    assert first["answers"]["result"][1] == second["answers"]["result"][1]


FOR_LAYERS = contestants_in("layers", "convolutions", kind="cuda")
PRODUCTS = contestants_in("layers", "products", kind="cuda")
PADDING = {"padding": (2,) * 4, "style": STYLE}
SHAPES = [
    Depthwise(9, 16, (9, 7), (5, 5), stride=(2, 2), **PADDING),
    Dense(9, 3, (9, 8), (5, 5), 24, stride=(2, 2), **PADDING),
    Squeeze(9, 24, 4, (5, 6), style=STYLE),
    Block(9, 8, 48, 8, (5, 6), squeezed=2, residual=True, style=STYLE),
    Block(9, 16, 0, 12, (6, 5), (5, 5), (2, 2), activation="relu6", **PADDING),
]
PROJECT = Pointwise(
    *(9, 16, 24, (5, 6)), gated=True, residual=True, activation="identity", style=STYLE
)
NETWORK = NetworkCase("efficientnet_b0", 32, 3, HALVES)
IN_HALVES: list[tuple[Case, tuple[Contestant, ...]]] = [
    *((LayerCase(shape, HALVES), FOR_LAYERS) for shape in SHAPES),
    (PointwiseCase(PROJECT, HALVES), PRODUCTS),
    (NETWORK, contestants_in("memory", kind="cuda")),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of problems, shared because making a network's weights takes seconds."""
    return tmp_path_factory.mktemp("problems")


@pytest.mark.parametrize(("case", "who"), IN_HALVES, ids=lambda v: getattr(v, "key", ""))
def test_16_bit_results_are_checked_with_their_own_tolerance(
    shared: Path, case: Case, who: tuple[Contestant, ...]
) -> None:
    make(str(shared), case)
    for contestant in who:
        prepared = Worker().prepare(contestant, case, str(shared))
        assert prepared.status == "ok", (contestant.name, prepared.reason)
        assert prepared.error is not None
        assert prepared.error > 1e-5  # far more than the error of float32
    inputs = Problem(shared, case).inputs()
    images = next(value for name, value in inputs.items() if name in ("x", "images"))
    assert (len(images), images.dtype) == (case.batch, torch.bfloat16)


@pytest.fixture
def _depthwise_kernels() -> Iterator[None]:
    """Restore the kernels that contestants choose for their process."""
    before = getattr(torch.backends.cudnn, "depthwise_kernel", None)
    yield
    if before is not None:
        torch.backends.cudnn.depthwise_kernel = before


@pytest.mark.slow
@pytest.mark.usefixtures("_depthwise_kernels")
def test_contestants_of_a_gpu_are_built_where_there_is_none(shared: Path) -> None:
    """Those that need no GPU compute the same; graphs report that they need one; what is not installed is missing."""
    case = NetworkCase("efficientnet_b0", 32, 2, HALVES)
    make(str(shared), case)
    found = {
        contestant.name: Worker().prepare(contestant, case, str(shared))
        for contestant in contestants_in("networks", kind="cuda")
        if contestant.family
        != "torch.compile"  # takes a minute to build, and is the same as on CPUs
    }
    graphs = {name for name in found if name.endswith("graph")}
    assert len(graphs) == 3
    assert all(found[name].status == "failed" for name in graphs)
    assert all("CUDA" in str(found[name].reason) for name in graphs)
    assert found["tensorrt"].status == "missing"
    by_name = {name for name in found if name.endswith(("-cudnn", "-native"))}
    assert len(by_name) == 4
    there = {
        **dict.fromkeys(found.keys() - graphs - {"tensorrt"}, True),
        **dict.fromkeys(by_name, hasattr(torch.backends.cudnn, "depthwise_kernel")),
        "timm-channels_last": importlib.util.find_spec("timm") is not None,
    }
    assert {name: found[name].status for name in there} == {
        name: "ok" if present else "missing" for name, present in there.items()
    }


STARTING = NetworkCase("efficientnet_b0", 32)


def startup_suite(*who: Contestant) -> Suite:
    return Suite("startup", "Starts", (STARTING,), who, Timing(), "startup", "startup")


def test_a_start_is_measured_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured in a fresh interpreter, which does not have this one's modules."""
    monkeypatch.setattr("benchmarks.harness.session._START_ROUNDS", 1)
    # The round that is not counted answers for the other one too.
    monkeypatch.setattr(startup, "measure", functools.cache(startup.measure))
    starting = startup_suite(*(c for c in contestants_in("startup", kind="cpu") if c.ours))
    with Session(make=InThisProcess) as session:
        row = session.measure(starting, STARTING)
    (ours,) = row.outcomes
    assert ours.status == "ok", ours.reason
    steps = {name.removeprefix("seconds of ") for name in ours.details}
    assert {"import torch", "import effkernels", "model", "first pass", "second pass"} == steps
    before = sum(v for k, v in ours.details.items() if k != "seconds of second pass")
    assert ours.seconds is not None
    assert ours.seconds.median == pytest.approx(before, abs=1e-3)


def test_contestants_that_cannot_start_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(contestant: str, *_: Any) -> dict[str, float]:
        if contestant == "torchvision":
            raise Missing("no torchvision")
        if contestant == "onnxruntime":
            raise RuntimeError("out of toys")
        return {"model": 1.0, "first pass": 2.0, "second pass": 4.0}

    def ask(process: InThisProcess, command: str, *arguments: Any) -> Any:
        try:
            return getattr(process.worker, command)(*arguments)
        except Exception as error:
            raise EntrantError(error_text(error)) from error

    monkeypatch.setattr("benchmarks.harness.startup.measure", measure)
    monkeypatch.setattr(InThisProcess, "ask", ask)
    starting = startup_suite(*contestants_in("startup", kind="cpu", full=False))
    with Session(make=InThisProcess) as session:
        ours, absent, broken = session.measure(starting, STARTING).outcomes
    assert ours.rounds == [3.0] * 5
    assert (absent.status, absent.reason, absent.rounds) == ("missing", "no torchvision", [])
    assert (broken.status, broken.reason) == ("failed", "RuntimeError: out of toys")
