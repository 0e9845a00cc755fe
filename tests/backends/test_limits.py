"""Why backends refuse arguments: where the limits come from, and that each op of a backend has its own
refusal.
"""

from __future__ import annotations

import sys

import pytest
import torch

from effkernels import dispatch
from effkernels._backends import limits
from effkernels._backends.compiled import compiled_status
from effkernels._backends.limits import KernelLimits, refusal
from effkernels.ops._schema import Norm
from effkernels.ops.conv_bn_act import ConvArguments
from effkernels.ops.pointwise_conv_bn_act import PointwiseArguments

NO_NORM = Norm(None, None, None, None, None, 0.0)
IMAGES, MATRIX = torch.empty(1, 3, 2, 2), torch.empty(4, 3)
POINTWISE = PointwiseArguments(IMAGES, MATRIX, *NO_NORM, None, None, "silu")
WINDOW = ((1, 1), (0, 0, 0, 0), (1, 1), "silu")
CONV = ConvArguments(IMAGES, torch.empty(4, 3, 2, 2), *NO_NORM, *WINDOW, None, None)


def stating(backend: str, results: str, *values: int) -> torch.library.Library:
    """A fake module of kernels that reports limits."""
    library = torch.library.Library(f"effkernels_{backend}", "FRAGMENT")
    library.define(f"limits() -> {results}")
    made = values if len(values) > 1 else values[0]
    library.impl("limits", lambda: made, "CompositeExplicitAutograd")
    return library


def test_limits_are_read_from_the_module_by_name() -> None:
    library = stating("example_of_two", "(int conv_terms, int kernel_rows)", 7, 5)
    assert limits.of_module("example_of_two") == KernelLimits(kernel_rows=5, conv_terms=7)
    library._destroy()


def test_a_module_may_report_one_limit() -> None:
    library = stating("example_of_one", "int kernel_rows", 5)
    assert limits.of_module("example_of_one") == KernelLimits(kernel_rows=5)
    library._destroy()


def test_a_limit_that_python_does_not_know_is_an_error() -> None:
    library = stating("example_of_another", "int kernel_depth", 5)
    with pytest.raises(ValueError, match="kernel_depth"):
        limits.of_module("example_of_another")
    library._destroy()


def test_a_module_that_says_nothing_limits_nothing() -> None:
    assert limits.of_module("example_of_none") == KernelLimits()
    assert min(KernelLimits()) == sys.maxsize


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_compiled_modules_state_the_rows_of_their_kernels(backend: str) -> None:
    """One more is what their own check refuses, too."""
    if compiled_status()[backend] is not None:
        pytest.skip(f"no module of the {backend} backend")
    rows = limits.of_module(backend).kernel_rows
    assert 7 <= rows < sys.maxsize
    weight = torch.empty(4, 1, rows + 1, 1)
    arguments = (torch.empty(1, 4, rows + 1, 2), weight, *NO_NORM, *WINDOW)
    assert f"at most {rows} rows" in dispatch._BACKENDS[backend].kernels[
        "depthwise_conv_bn_act"
    ].rejects(*arguments)
    if backend == "cpu":
        with pytest.raises(RuntimeError, match=f"at most {rows} rows"):
            torch.ops.effkernels_cpu.depthwise_conv_bn_act(*arguments)


def test_the_first_reason_is_returned() -> None:
    def never(_: object) -> str:
        return "never"

    assert refusal(PointwiseArguments, limits.other_dtypes)(*POINTWISE) is None
    refuses = refusal(PointwiseArguments, limits.other_dtypes, never)
    assert refuses(*POINTWISE) == "never"
    doubles = POINTWISE._replace(residual=IMAGES.double())
    assert refuses(*doubles) == "it computes float32, bfloat16 and float16, not torch.float64"


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({}, None),
        ({"x": IMAGES.byte()}, None),
        ({"weight": torch.empty(4, 3, 2, 2).byte()}, "uint8"),
        ({"x": IMAGES.byte(), "weight": torch.empty(4, 3, 2, 2).byte()}, "uint8"),
        ({"x": IMAGES.byte(), "mean": torch.empty(3).double()}, "float64"),
        ({"x": IMAGES.double()}, "float64"),
    ],
)
def test_only_images_may_be_uint8(changes: dict[str, torch.Tensor], dtype: str | None) -> None:
    reason = limits.other_dtypes_but_uint8_images(CONV._replace(**changes))
    expected = dtype and f"it computes float32, bfloat16 and float16, not torch.{dtype}"
    assert reason == expected


@pytest.mark.parametrize("backend", ["cpu", "cuda", "triton"])
def test_refusals_take_the_arguments_of_their_op(backend: str) -> None:
    """Neither fewer nor more arguments; with any values, because refusals come before the kernels' own
    checks.
    """
    for name, kernel in dispatch._BACKENDS[backend].kernels.items():
        if name == "network":
            continue
        private = getattr(getattr(torch.ops, f"effkernels_{backend}"), name)
        count = len(private.default._schema.arguments)
        kernel.rejects(*[IMAGES] * count)
        for other in (count - 1, count + 1):
            with pytest.raises(TypeError, match="argument"):
                kernel.rejects(*[IMAGES] * other)
