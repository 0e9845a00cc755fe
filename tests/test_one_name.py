"""An op has one name: its files are called after it in every folder, and no file there is called otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

import effkernels
from source_tree import ROOT

OPS = sorted(p.stem for p in (ROOT / "effkernels/ops").glob("*.py") if not p.stem.startswith("_"))
# Composed of other ops: the reference is put together where the contract is.
COMPOSED = ("expand_depthwise_conv_bn_act", "mbconv")
# Launches the kernels of other ops, and has none of its own.
WITHOUT_KERNEL = {("cuda", "mbconv")}
# What stands beside the ops' files and serves several of them, or a whole network; or training alone.
OTHERS = {
    "csrc/args": {"common", "depthwise_conv_wgrad", "linear"},
    "csrc/cpu": {"depthwise_conv_wgrad", "kernels", "linear"},
    # Kernels that an op chooses for some of its arguments; and those of networks, beside what is no kernel.
    "csrc/cuda": {"depthwise_tensor_core", "stem_conv_bn_act", "sums_gate"}
    | {"device_arch", "linear", "network", "network_work"},
    "csrc/binding/common": {"arguments", "errors", "held", "linear", "network", "plans", "torch"}
    | {"tensor_states"},
    "csrc/binding/cpu": {"hold", "limits", "module", "network", "network_clock", "objects", "run"}
    | {"depthwise_conv_wgrad", "new_memory", "step_times", "workspace"},
    "csrc/binding/cuda": {"call", "device_arch", "hold", "launch", "launch_records", "limits"}
    | {"launch_times", "module", "network", "new_memory"},
    "effkernels/_backends/triton": {"__init__", "elementwise", "launch", "tuning"},
    "effkernels/reference": {"__init__", "convolution", "elementwise"},
}


def stems(folder: str) -> set[str]:
    return {path.stem for path in (ROOT / folder).iterdir() if path.is_file()}


def test_ops_are_there() -> None:
    assert set(COMPOSED) < set(OPS) <= set(effkernels.ops.__all__)


@pytest.mark.parametrize("folder", OTHERS)
def test_files_are_called_after_ops(folder: str) -> None:
    assert stems(folder) - OTHERS[folder] <= set(OPS)


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_a_spec_and_a_reference_of_its_name(op: str) -> None:
    assert (ROOT / f"specs/{op}.py").is_file()
    assert (ROOT / f"effkernels/reference/{op}.py").is_file() == (op not in COMPOSED)


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
@pytest.mark.parametrize("op", OPS)
def test_a_kernel_and_its_binding_have_its_name(op: str, backend: str) -> None:
    source = {"cpu": "cpp", "cuda": "cu"}[backend]
    kernel = (ROOT / f"csrc/{backend}/{op}.{source}").is_file()
    computed = kernel or (backend, op) in WITHOUT_KERNEL
    assert (ROOT / f"csrc/binding/{backend}/{op}.cpp").is_file() == computed
    if computed:
        assert (ROOT / f"csrc/args/{op}.h").is_file()
    registered = effkernels.backends()[backend].ops
    if registered:  # the module is there, whether or not a GPU is
        assert (op in registered) == computed


@pytest.mark.parametrize("op", OPS)
def test_triton_kernels_have_its_name(op: str) -> None:
    registered = effkernels.backends()["triton"].ops
    if registered:
        path: Path = ROOT / f"effkernels/_backends/triton/{op}.py"
        assert (op in registered) == path.is_file()
