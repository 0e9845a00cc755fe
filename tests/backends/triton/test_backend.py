"""The triton backend within the package: what its import costs, what it refuses and reports; needs no GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

import effkernels
from effkernels import dispatch
from effkernels._backends import limits
from fakes import fake_pass
from fallbacks import fallbacks
from interpreter import Interpreter
from model_names import TO_B7
from parity import to_device
from processes import run_python
from source_tree import ROOT
from specs.samples import labels, labels_of_parts, samples
from tiers import slow_unless
from workers import WorkerError

needs_triton = pytest.mark.skipif(
    effkernels.backends()["triton"].reason == "triton is not installed",
    reason="triton is not installed",
)


def test_importing_neither_imports_triton_nor_says_anything() -> None:
    # PyTorch's own FLOP counter imports triton if it is installed.
    code = (
        "import sys, torch.utils.flop_counter; before = set(sys.modules); import effkernels\n"
        "new = set(sys.modules) - before\n"
        "print([m for m in new if m.startswith(('triton', 'effkernels._backends.triton.'))])"
    )
    done = run_python("-W", "error", "-c", code)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_without_triton_the_reason_is_reported() -> None:
    code = (
        "import sys; sys.modules['triton'] = None; import effkernels\n"
        "print(effkernels.backends()['triton'].reason)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "triton is not installed", done.stderr
    assert "effkernels" not in done.stderr  # PyTorch prints a warning of its own


@needs_triton
def test_it_says_why_it_is_not_available() -> None:
    status = effkernels.backends()["triton"]
    assert status.available == (torch.cuda.device_count() > 0)
    if not status.available:
        assert status.reason == "there is no CUDA device"
        with pytest.raises(ValueError, match="there is no CUDA device"):
            effkernels.use_backend("triton")


@needs_triton
def test_without_a_c_compiler_it_is_not_available() -> None:
    code = (
        "import os, torch; os.environ.pop('CC', None); torch.cuda.device_count = lambda: 1\n"
        "import effkernels; print(effkernels.backends()['triton'].reason)"
    )
    done = run_python("-c", code, PATH="/nowhere")
    assert "needs a C compiler" in done.stdout, done.stderr


@needs_triton
def test_the_interpreter_computes_cpu_tensors_on_request() -> None:
    code = (
        "import sys, torch, effkernels, interpreter_loops\n"
        "interpreter_loops.allow_loops()\n"
        "x, w = torch.ones(1, 4, 5, 5), torch.ones(4, 1, 3, 3)\n"
        "def run():\n"
        "    effkernels.ops.depthwise_conv_bn_act(x, w)\n"
        "    return 'effkernels._backends.triton.depthwise_conv_bn_act' in sys.modules\n"
        "found = [run()]\n"
        "with effkernels.use_backend('triton', fallback=False): found.append(run())\n"
        "print(effkernels.backends()['triton'].available, *found)"
    )
    path = os.pathsep.join((str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")))
    environment = {"TRITON_INTERPRET": "1", "EFFKERNELS_BACKEND": "auto", "PYTHONPATH": path}
    done = run_python("-c", code, **environment)
    assert done.stdout.strip() == "True False True", done.stderr


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """CUDA tensors without data, and the backend as on a GPU of compute capability 9.0."""
    monkeypatch.setattr(limits, "capability", lambda _: (9, 0))
    monkeypatch.setattr(dispatch._BACKENDS["triton"], "unavailable", None)
    monkeypatch.setattr(dispatch, "_warned", set())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


@needs_triton
@pytest.mark.parametrize("label", labels_of_parts())
def test_it_takes_cuda_tensors(pretended: FakeTensorMode, label: str) -> None:
    case = samples(torch.float16)[labels().index(label)]
    flat = to_device(case.flat, "cuda:0")
    with effkernels.use_backend("triton", fallback=False):
        kernel = dispatch.choose(case.name, "cuda", flat)
    assert kernel is getattr(torch.ops.effkernels_triton, case.name).default
    first = kernel(*flat)
    first = first[0] if isinstance(first, tuple) else first
    assert first.device == torch.device("cuda:0")


@needs_triton
@pytest.mark.skipif(torch.version.cuda is None, reason="PyTorch without CUDA: no tensors there")
@pytest.mark.parametrize(
    ("name", "dtype"),
    slow_unless(
        [TO_B7[0], TO_B7[-1]],
        [(TO_B7[0], torch.float32), *((name, torch.bfloat16) for name in TO_B7)],
    ),
    ids=str,
)
def test_every_convolution_of_b0_to_b7_runs_on_a_kernel(
    pretended: FakeTensorMode, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the CUDA kernels, and with them if they are built, for which B0 suffices here: PyTorch computes only the
    mean and the classifier.
    """
    for without in (False, True) if name == TO_B7[0] else (True,):
        if without:
            monkeypatch.setattr(dispatch._BACKENDS["cuda"], "unavailable", "left out")
        elif dispatch._BACKENDS["cuda"].kernels:
            monkeypatch.setattr(dispatch._BACKENDS["cuda"], "unavailable", None)
        model, _, calls = fake_pass(name, dtype)
        blocks = [block for stage in model.stages for block in stage]
        ours = [key for key in calls.counts if key.startswith("effkernels")]
        # Stem and head, and each block: one call on cuda; on triton expand, if it has one, depthwise, gate and project.
        on_cuda = any("cuda" in key for key in ours)
        of_blocks = [1 if on_cuda else 3 + (block.expand is not None) for block in blocks]
        assert sum(calls.counts[key] for key in ours) == 2 + sum(of_blocks)
        assert not any("conv" in key or "norm" in key for key in calls.counts if key not in ours)
        assert not (without and any("cuda" in key for key in ours))


def gate(x: Tensor, hidden: int) -> tuple[Any, ...]:
    weight = torch.empty(hidden, x.shape[1], dtype=x.dtype)
    return x, weight, None, weight.t(), None, "silu"


X = torch.empty(2, 32, 8, 8, dtype=torch.float16)
WINDOW = (*(None,) * 5, 0.0, [1, 1], [1] * 4, [1, 1], "silu")
REJECTED: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "float64": (
        "pointwise_conv_bn_act",
        (X.double(), torch.empty(8, 32).double(), *(None,) * 5, 0.0, None, None, "silu"),
        "computes float32, bfloat16 and float16, not torch.float64",
    ),
    "terms": (
        "conv_bn_act",
        (X, torch.empty(8, 32, 3, 3).half(), *WINDOW, None, None),
        "sums at most 256 terms, not 288",
    ),
    "hidden": ("squeeze_excite", gate(X, 1025), "at most 1024 hidden channels, not 1025"),
    "pooled": (
        "squeeze_excite_gate",
        gate(torch.empty(2, 32).half(), 4),
        "computes gates from float32, not torch.float16",
    ),
}


@needs_triton
@pytest.mark.parametrize("name", REJECTED)
def test_rejected_calls_run_the_reference_with_one_warning(
    pretended: FakeTensorMode, name: str, recwarn: pytest.WarningsRecorder
) -> None:
    op, flat, reason = REJECTED[name]
    with effkernels.use_backend("triton"):
        for _ in range(2):
            assert dispatch.choose(op, "cuda", to_device(flat, "cuda:0")) is None
    (line,) = fallbacks(recwarn)
    assert line.startswith(f"{op}: not on the triton backend: ")
    assert reason in line


def test_accesses_out_of_bounds_are_found(interpreter: Interpreter) -> None:
    """Tests the check that is active in all tests of ops in the interpreter."""
    assert interpreter.worker.call("planted", 0, 0).tolist() == [*range(10), *[0] * 6]
    with pytest.raises(WorkerError, match="reads 1 elements out of bounds"):
        interpreter.worker.call("planted", 1, 0)
    with pytest.raises(WorkerError, match="writes 2 elements out of bounds"):
        interpreter.worker.call("planted", 0, 2)


@needs_triton
def test_tf32_follows_pytorchs_setting_for_convolutions() -> None:
    code = (
        "import torch; from effkernels._backends.triton.launch import product_precision as precision\n"
        "def show(): print(precision(torch.float32), precision(torch.bfloat16))\n"
        "show()\n"
        "torch.backends.cudnn.allow_tf32 = False; show()\n"
        "torch.backends.cudnn.conv.fp32_precision = 'tf32'; show()\n"
        "torch.backends.cudnn.conv.fp32_precision = 'ieee'; show()"
    )
    done = run_python("-c", code)
    expected = ["tf32 ieee", "ieee ieee", "tf32 ieee", "ieee ieee"]
    assert done.stdout.splitlines() == expected, done.stderr
