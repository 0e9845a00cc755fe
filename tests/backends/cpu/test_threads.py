"""Results do not depend on where they are computed: thread counts, several callers, other
processes.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import effkernels
from cpu_kernels import in_float64, run_kernels, run_reference, threads, usable_instruction_sets
from effkernels import ops
from processes import run_python
from specs.case import Case
from specs.conv_bn_act import Dense
from specs.depthwise_conv_bn_act import Depthwise
from specs.mbconv import Block
from specs.pointwise_conv_bn_act import Pointwise
from specs.squeeze_excite import Squeeze
from specs.squeeze_excite_gate import Gate
from specs.tolerance import assert_within_eager
from tiers import slow_unless

CALLS: dict[str, tuple[Callable[..., object], Case]] = {
    "depthwise": (
        ops.depthwise_conv_bn_act_pool,
        Depthwise(2, 70, (40, 33), (3, 3), padding=(1, 1, 1, 1)),
    ),
    "convolution": (ops.conv_bn_act, Dense(2, 5, (30, 33), (3, 3), 90, padding=(1, 1, 1, 1))),
    "pointwise": (ops.pointwise_conv_bn_act, Pointwise(3, 70, 90, (14, 13), gated=True)),
    "pointwise of small images": (
        ops.pointwise_conv_bn_act,
        Pointwise(5, 70, 90, (7, 7), gated=True, residual=True),
    ),
    "gate": (ops.squeeze_excite_gate, Gate(3, 900, 80)),
    "squeeze_excite": (ops.squeeze_excite, Squeeze(2, 70, 9, (30, 31))),
    "mbconv": (ops.mbconv, Block(3, 12, 150, 12, (30, 31), squeezed=6, residual=True)),
    "mbconv without expand": (ops.mbconv, Block(2, 70, 0, 12, (30, 31), squeezed=6)),
}


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest, seed: int) -> Callable[[], tuple[Tensor, ...]]:
    """One of the calls, each time on the same tensors."""
    op, case = CALLS[request.param]
    arguments = case.styled(seed=seed).arguments()
    return lambda: run_kernels(op, arguments)


def assert_same_bits(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_repeated_calls_give_the_same_bits(
    call: Callable[[], tuple[Tensor, ...]], count: int
) -> None:
    with threads(count):
        first = call()
        for _ in range(5):
            assert_same_bits(call(), first)


@pytest.mark.parametrize("name", CALLS)
def test_thread_counts_agree(name: str, seed: int) -> None:
    op, case = CALLS[name]
    arguments = case.styled(seed=seed).arguments()
    exact = run_reference(op, in_float64(arguments))
    eager = run_reference(op, arguments)
    for count in (1, 2, 5):
        with threads(count):
            for ours in zip(run_kernels(op, arguments), eager, exact, strict=True):
                assert_within_eager(*ours, magnitude=ours[-1].abs().max().item(), depth=200)


def test_several_callers_at_once(call: Callable[[], tuple[Tensor, ...]]) -> None:
    # Python threads, each of which distributes its calls over torch's threads.
    expected = call()
    start, right = threading.Barrier(4), []
    mine = torch.get_num_threads()

    def run() -> None:
        torch.set_num_threads(mine)
        start.wait()
        results = [call() for _ in range(10)]
        right.append(
            all(torch.equal(a, b) for r in results for a, b in zip(r, expected, strict=True))
        )

    callers = [threading.Thread(target=run) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert right == [True] * 4


@pytest.fixture
def network() -> Callable[[], Tensor]:
    """A call of a whole network in one op, each time on the same image."""
    torch.manual_seed(0)
    model = effkernels.create_model("efficientnet_lite0").eval()
    image = torch.randn(2, 3, 64, 64)

    def run() -> Tensor:
        with torch.inference_mode(), effkernels.use_backend("cpu", fallback=False):
            return model(image)

    return run


# Five, and more than there are processors.
@pytest.mark.parametrize("count", [1, 2, 5, 3 + (os.cpu_count() or 1)])
def test_networks_repeat_their_bits(network: Callable[[], Tensor], count: int) -> None:
    with threads(count):
        first = network()
        for _ in range(3):
            assert torch.equal(network(), first)
    with threads(1):
        assert_close(network(), first, rtol=1e-4, atol=1e-4 * first.abs().max().item())


def test_networks_of_several_callers_at_once(network: Callable[[], Tensor]) -> None:
    with threads(2):
        expected = network()
    start = threading.Barrier(4)

    def run() -> bool:
        torch.set_num_threads(2)
        start.wait()
        return all(torch.equal(network(), expected) for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: run(), range(4)))


_PLACED = """
import os, time
import effkernels, torch
torch.set_num_threads(2)
model = effkernels.create_model("efficientnet_lite0").eval()
image = torch.zeros(1, 3, 64, 64)
may_use = os.sched_getaffinity(0)
for pause in (0.0, 0.3, 0.3):
    time.sleep(pause)
    with torch.inference_mode():
        model(image)
    tasks = [int(task) for task in os.listdir("/proc/self/task")]
    assert len(tasks) > 1
    assert all(os.sched_getaffinity(task) == may_use for task in tasks)
print("as before")
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="only Linux tells where a thread may run"
)
def test_threads_that_were_woken_may_run_where_they_might_before() -> None:
    assert run_python("-c", _PLACED).stdout == "as before\n"


_WORKER = """
import multiprocessing, os, sys
import effkernels, torch
from effkernels import ops

def work(_=None):
    torch.manual_seed(3)
    x, weight = torch.randn(2, 40, 20, 20), torch.randn(40, 1, 3, 3)
    expand, project = torch.randn(90, 40), torch.randn(40, 90)
    wide = torch.randn(90, 1, 3, 3)
    with effkernels.use_backend("cpu", fallback=False):
        y = ops.depthwise_conv_bn_act(x, weight, padding=1)
        z = ops.mbconv(x, ops.Conv(expand), ops.Conv(wide), None, ops.Conv(project), padding=1)
    return y.sum().item(), z.sum().item()

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(1) as pool:
        found = pool.map(work, range(2))
    found.append(work())
    assert len(set(found)) == 1, found
    assert found[0][0] == found[0][0] != 0
    print("the same in all processes")
"""


# Only a fork inherits anything of the parent's threads.
@pytest.mark.parametrize("method", slow_unless(["fork"], ["spawn", "fork", "forkserver"]))
def test_worker_processes_of_an_idle_parent(method: str, tmp_path: Path) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    script = tmp_path / "workers.py"
    script.write_text(_WORKER)
    done = run_python(str(script), method)
    assert done.stdout.splitlines()[-1:] == ["the same in all processes"], done.stderr


_REPORT = """
import effkernels, torch
from effkernels import ops
from effkernels._backends import compiled
status = effkernels.backends()["cpu"]
print(compiled.build_info()["instruction_sets"]["in_use"], status.available, status.reason, sep="|")
try:
    with effkernels.use_backend("cpu"):
        print("forced")
except ValueError as error:
    print(error)
print(tuple(ops.depthwise_conv_bn_act(torch.ones(1, 3, 4, 4), torch.ones(3, 1, 3, 3)).shape))
"""


@pytest.mark.parametrize("name", slow_unless([" Baseline "], [" Baseline ", "avx2"]))
def test_instruction_set_from_the_environment(name: str) -> None:
    if name.strip().lower() not in usable_instruction_sets():
        pytest.skip(f"no {name} here")
    done = run_python("-c", _REPORT, EFFKERNELS_CPU_ISA=name)
    assert done.stdout.splitlines() == [
        f"{name.strip().lower()}|True|None",
        "forced",
        "(1, 3, 2, 2)",
    ], done.stderr


def test_unknown_instruction_set_is_an_error() -> None:
    done = run_python("-c", _REPORT, EFFKERNELS_CPU_ISA="mmx")
    status, refusal = done.stdout.splitlines()
    reason = "EFFKERNELS_CPU_ISA: no instruction set 'mmx' here; there are "
    assert status.split("|")[1:] == ["False", status.split("|")[2]]
    assert status.split("|")[2].startswith(reason)
    assert refusal.startswith(f"use_backend: backend 'cpu' is not available: {reason}")
    assert f"ValueError: {reason}" in done.stderr
    assert done.returncode == 1
