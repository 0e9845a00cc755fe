"""Tests the repository's own benchmarks: the suite's conftest puts the repository root at the end of `sys.path`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.report.results import Outcome, Report, Row

MACHINE = {
    "cpu": "Imagined CPU @ 1 GHz",
    "threads": 2,
    "platform": "Linux",
    "python": "3.11",
    "versions": {"torch": "2.15", "onnxruntime": "1.31", "openvino": None},
    "commit": "0123456789ab",
    "effkernels": {
        "package": "effkernels",
        "backends": {"cpu": "available", "torch": "available", "cuda": "not built: no nvcc"},
        "instruction_sets": None,
    },
}


def timed(contestant: str, *rounds: float, family: str | None = None, **more: object) -> Outcome:
    return Outcome(contestant, family or contestant, "ok", rounds=list(rounds), **more)  # type: ignore[arg-type]


@pytest.fixture
def network_row() -> Row:
    return Row(
        suite="networks",
        key="efficientnet_b0-224px-batch1",
        title="B0@224, batch 1",
        images=1,
        bytes=30_000_000,
        macs=390_000_000,
        case={
            "model": "efficientnet_b0",
            "resolution": 224,
            "batch": 1,
            "device": {"kind": "cpu", "type": "float32"},
        },
        bound=0.001,
        bound_kind="arithmetic",
        outcomes=[
            timed("effkernels", 0.002, 0.004, 0.002),
            timed("onnxruntime", 0.004, 0.008, 0.004),
            Outcome("openvino", "openvino", "missing", "openvino does not import: No module"),
            timed("eager-channels_last", 0.009, 0.018, 0.009, family="eager"),
            timed("eager-NCHW", 0.008, 0.016, 0.008, family="eager"),
            Outcome("compile", "torch.compile", "mismatch", "error 1.00e+00, allowed 1.00e-04"),
        ],
    )


@pytest.fixture
def make_report() -> Callable[..., Report]:
    def make(*rows: Row) -> Report:
        limits = {"bandwidth": [[1e6, 1e11], [1e9, 2e10]], "flops": 2e11}
        return Report(MACHINE, {"full": False}, limits, list(rows), "2026-01-02 03:04 UTC")

    return make
