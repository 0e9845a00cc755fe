"""Set up every test: the copy under test, the seed, the precision, the gpu marker. Reports the run's duration."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import random
import secrets
import sys
import time
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

# Processes of pytest-xdist share the cores: threads that wait for each other would spin. The variable is read when
# torch is imported, and by the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

import effkernels
from effkernels._backends import compiled
from effkernels_build.toolchain import Compiler, find_compiler
from source_tree import ROOT
from suite_guard import (
    absent_emulator,
    absent_oracle,
    first_problem,
    installed_package,
    too_few,
    wrong_copy,
    wrong_modules,
)

# For `specs`. Last, because the root contains the package's source without the compiled modules.
sys.path.append(str(ROOT))
# Tests use PyTorch's deterministic algorithms, and matrix products on a GPU then need this variable.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

SEED = int(os.environ.get("EFFKERNELS_TEST_SEED") or secrets.randbits(32))
_MODULES = {"cpu": "_C", "cuda": "_C_cuda"}

try:
    from hypothesis import settings
except ImportError:  # tests that need it are skipped
    pass
else:
    # On two busy cores any deadline would fail at random.
    settings.register_profile("effkernels", deadline=None, print_blob=True, max_examples=60)
    # Sanitizers take three times as long.
    settings.register_profile("effkernels-few", settings.get_profile("effkernels"), max_examples=15)
    settings.load_profile(os.environ.get("EFFKERNELS_TEST_PROFILE") or "effkernels")

# Files of few tests that take longer than others of many. Several processes start with these, lest one of them run the
# last of them alone; pytest-xdist by itself starts with the files of most tests.
LONG_FILES = (
    "backends/triton/test_offline.py",
    "build/test_error_messages.py",
    "build/test_install.py",
    "backends/cuda/test_network.py",
    "backends/cpu/test_thread_sanitizer.py",
    "backends/cpu/test_arm.py",
    "benchmarks/test_session.py",
    "models/test_surgery.py",
    "cli/test_entry.py",
    "models/test_behaviour.py",
    "models/test_tracing.py",
)

_passed = 0
_started = time.monotonic()


def _status() -> dict[str, str | None]:
    return {_MODULES[backend]: why for backend, why in compiled.compiled_status().items()}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"


# Before hypothesis reads its option.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    global SEED
    SEED = getattr(config, "workerinput", {}).get("effkernels_seed", SEED)
    if getattr(config.option, "hypothesis_seed", "") is None:
        config.option.hypothesis_seed = SEED
    config.option.loadscopereorder = False  # see _longest_first
    # Oracles in fp32 must use fp32; cuDNN's default is TF32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """The processes of pytest-xdist use the seed that this process prints."""
    node.workerinput["effkernels_seed"] = SEED


def pytest_report_header() -> list[str]:
    modules = ", ".join(
        name if reason is None else f"no {name} ({reason})" for name, reason in _status().items()
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    return [
        f"effkernels {_version('effkernels')} from {Path(effkernels.__file__).parent}: {modules}",
        f"torch {torch.__version__}, triton {_version('triton')}, {device}",
        f"seed {SEED} (EFFKERNELS_TEST_SEED={SEED} repeats this run)",
    ]


def pytest_sessionstart() -> None:
    installed = installed_package(importlib.metadata.distributions(name="effkernels"))
    compiler = find_compiler(os.environ)
    problem = first_problem(
        [
            wrong_copy(Path(effkernels.__file__).parent, installed, os.environ),
            wrong_modules(
                _status(), os.environ, compiler.version if isinstance(compiler, Compiler) else None
            ),
        ]
    )
    if problem is not None:
        pytest.exit(f"not the copy to test: {problem}", returncode=pytest.ExitCode.USAGE_ERROR)


def _longest_first(items: list[pytest.Item]) -> None:
    """Sort the files of tests: LONG_FILES, then those of most tests."""
    tests = Counter(item.path for item in items)
    long = {ROOT / "tests" / name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: (long.get(item.path, len(long)), -tests[item.path]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _is_xdist_worker(config):
        _longest_first(items)
    if torch.cuda.is_available():
        return
    no_gpu = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(no_gpu)


def pytest_collection_finish() -> None:
    """Garbage collections no longer go through what was imported, which takes a quarter of a second each time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    # Seeded by the test's name, so that a test run alone draws the same numbers as in the whole suite.
    seed = (SEED + zlib.crc32(item.nodeid.encode())) % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    reason = str(report.longrepr)
    if report.skipped and (
        absent_oracle(reason, os.environ) or absent_emulator(reason, os.environ)
    ):
        report.outcome = "failed"
    if report.failed:
        tier = "-m slow " if item.get_closest_marker("slow") else ""
        again = f"EFFKERNELS_TEST_SEED={SEED} pytest {tier}'{item.nodeid}'"
        report.sections.append(("seed", again))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    global _passed
    _passed += report.when == "call" and report.passed


@pytest.fixture(autouse=True)
def _oracles_of_gpu_tests_without_onednn(request: pytest.FixtureRequest) -> Iterator[None]:
    """On a machine with 16 cores oneDNN, in PyTorch 2.11, crashed in some dilated convolutions."""
    if request.node.get_closest_marker("gpu") is None:
        yield
        return
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # `flags` also sets an option of Intel's GPUs, and warns
    yield
    torch.backends.mkldnn.enabled = before


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed for this test, derived from the run's seed."""
    return (SEED + zlib.crc32(request.node.nodeid.encode())) % 2**32


def _is_xdist_worker(config: pytest.Config) -> bool:
    """Whether this process runs only a share of the tests, so that its counts are not totals."""
    return hasattr(config, "workerinput")


def pytest_sessionfinish(session: pytest.Session) -> None:
    problem = None if _is_xdist_worker(session.config) else too_few(_passed, os.environ)
    if problem is not None and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    minutes, seconds = divmod(round(time.monotonic() - _started), 60)
    said = f"{minutes} min {seconds} s"
    if config.option.markexpr == "not slow":
        said += "; without slow tests (pytest -m 'slow or not slow' runs them too)"
    terminalreporter.write_line(said)
    problem = too_few(_passed, os.environ)
    if problem is not None:
        terminalreporter.write_line(f"FAILED: {problem}", red=True, bold=True)
