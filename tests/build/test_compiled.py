"""What the installed package reports about its compiled modules, and what they contain."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import effkernels
from effkernels._backends import compiled
from effkernels_build.cuda import device_archs
from effkernels_build.modules import instruction_sets
from processes import run_python
from source_tree import ROOT

INFO = compiled.build_info()
STATUS = compiled.compiled_status()

needs_cpu_module = pytest.mark.skipif(STATUS["cpu"] is not None, reason=f"no _C: {STATUS['cpu']}")
needs_cuda_module = pytest.mark.skipif(
    STATUS["cuda"] is not None, reason=f"no _C_cuda: {STATUS['cuda']}"
)


def module_file(module: object) -> str:
    return str(getattr(module, "__file__", None))


def test_record_is_installed() -> None:
    assert set(INFO["modules"]) == {"_C", "_C_cuda"}
    assert INFO["cxx_standard"] == 20
    for key in ("torch", "torch_cuda", "compiler", "cuda", "cuda_archs", "python", "platform"):
        assert key in INFO


def test_version_is_the_distributions() -> None:
    assert effkernels.__version__ == importlib.metadata.version("effkernels")


def test_status_agrees_with_the_modules() -> None:
    assert set(STATUS) == {"cpu", "cuda"}
    assert (STATUS["cpu"] is None) == (compiled.cpu_module() is not None)
    assert (STATUS["cuda"] is None) == (compiled.cuda_module() is not None)
    for module in (compiled.cpu_module(), compiled.cuda_module()):
        if module is not None:
            assert Path(module_file(module)).parent == Path(effkernels.__file__).parent


def test_reasons_reach_the_user() -> None:
    shown = effkernels.backends()
    for name, reason in STATUS.items():
        if reason is not None:
            assert shown[name].reason == reason


@needs_cpu_module
def test_cpu_module() -> None:
    assert INFO["modules"]["_C"] is None
    assert INFO["cplusplus"] >= 202002
    assert INFO["compiled_with"] in INFO["compiler"] or "clang" in INFO["compiler"]
    assert INFO["python"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    found = INFO["instruction_sets"]
    assert set(found) == {"compiled", "detected", "kernels", "in_use"}
    # torch detects the processor in another way.
    by_torch = {"AVX512": "avx512f", "AVX2": "avx2"}.get(torch.backends.cpu.get_cpu_capability())
    if by_torch is not None:
        assert by_torch in found["detected"]
        assert by_torch.removesuffix("f") in found["kernels"]


@needs_cpu_module
def test_kernels_are_those_that_the_processor_runs() -> None:
    module, found = compiled.cpu_module(), INFO["instruction_sets"]
    names = list(instruction_sets())
    # Their order depends on the processor: see csrc/cpu/runtime/instruction_sets.cpp.
    assert set(found["kernels"]) == set(names[: len(found["kernels"])])
    assert found["kernels"]
    before = module.build_info()["instruction_sets"]["in_use"]
    try:
        for name in found["kernels"]:
            module.use_instruction_set(name)
            assert module.build_info()["instruction_sets"]["in_use"] == name
        with pytest.raises(
            ValueError, match="'mmx' here; there are " + ", ".join(found["kernels"])
        ):
            module.use_instruction_set("mmx")
        assert module.build_info()["instruction_sets"]["in_use"] == name
    finally:
        module.use_instruction_set(before)


@needs_cpu_module
def test_the_fastest_kernels_are_in_use_unless_others_are_requested() -> None:
    requested = os.environ.get("EFFKERNELS_CPU_ISA", "").strip().lower()
    found = INFO["instruction_sets"]
    assert found["in_use"] == (requested or found["kernels"][-1])


def test_missing_module_has_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="effkernels"):
        module, reason = compiled._load("_no_such_module")
    assert module is None
    assert reason is not None
    assert reason in caplog.text


def test_import_is_silent() -> None:
    code = "import effkernels; effkernels.backends()"
    done = run_python("-c", code)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.gpu
@needs_cuda_module
def test_device_code_runs() -> None:
    major, minor = torch.cuda.get_device_capability()
    arch = compiled.device_code_arch()
    assert arch // 100 <= major
    assert arch <= 100 * major + 10 * minor


@pytest.mark.skipif(STATUS["cuda"] is None, reason="_C_cuda is loaded")
def test_device_code_without_module() -> None:
    with pytest.raises(RuntimeError, match=re.escape(str(STATUS["cuda"]))):
        compiled.device_code_arch()


@needs_cuda_module
def test_device_code_without_device() -> None:
    schema = torch.ops.effkernels_cuda.device_arch.default._schema
    assert str(schema) == "effkernels_cuda::device_arch(Tensor probe) -> Tensor"
    with pytest.raises(NotImplementedError, match="CPU"):
        torch.ops.effkernels_cuda.device_arch(torch.empty(0))


@needs_cuda_module
def test_module_holds_device_code_for_its_archs(cuobjdump: str) -> None:
    module = module_file(compiled.cuda_module())
    found = subprocess.run(
        [cuobjdump, "--list-elf", module], capture_output=True, text=True, check=True
    )
    assert INFO["cuda_archs"]
    for arch in device_archs(INFO["cuda_archs"]):
        assert f".{arch}.cubin" in found.stdout
    ptx = subprocess.run(
        [cuobjdump, "--list-ptx", module], capture_output=True, text=True, check=True
    )
    for arch in INFO["cuda_archs"]:
        if arch.endswith("+PTX"):
            assert f".{device_archs([arch])[0]}.ptx" in ptx.stdout


@needs_cuda_module
def test_module_uses_the_stable_abi_alone() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm")
    command = [nm, "-D", "--undefined-only", module_file(compiled.cuda_module())]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert any(symbol.startswith("aoti_torch_") for symbol in symbols)
    # Mangled names of C++ functions in at::, c10:: and torch::, which change between torch's versions.
    unstable = re.compile(r"_ZNK?(2at|3c10|5torch)")
    assert [symbol for symbol in symbols if unstable.match(symbol)] == []


def test_a_source_tree_without_a_build_says_so_once(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "effkernels",
        tmp_path / "effkernels",
        ignore=shutil.ignore_patterns("*.so", "_build_info.json", "__pycache__"),
    )
    code = f"import effkernels; assert effkernels.__file__.startswith({str(tmp_path)!r})"
    done = run_python("-c", code, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is a source tree without a build") == 1
    assert "FallbackWarning" in done.stderr
    assert "pip install ." in done.stderr
    asked = run_python("-c", code, PYTHONPATH=str(tmp_path), EFFKERNELS_BACKEND="torch")
    assert (asked.returncode, asked.stderr) == (0, "")
