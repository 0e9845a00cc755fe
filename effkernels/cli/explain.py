"""``effkernels explain``: which kernel runs for each layer of a model here, at what cost, and why that one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

import effkernels
from effkernels.cli.options import (
    check_at_least_1,
    choose_device,
    torch_dtype,
)
from effkernels.cli.output import console, print_json, printable
from effkernels.explaining import Explanation
from effkernels.models.registry import get_config


def explain(
    *,
    model: str,
    resolution: int | None,
    batch_size: int,
    dtype: str,
    device: str | None,
    as_json: bool,
) -> None:
    """Print which kernel runs for each layer; see ``effkernels explain --help``."""
    check_at_least_1("--batch-size", batch_size)
    side = get_config(model).resolution if resolution is None else resolution
    check_at_least_1("--resolution", side)
    where, _ = choose_device(device)
    network = effkernels.create_model(model, device=where, dtype=torch_dtype(dtype)).eval()
    shape = batch_size, network.in_channels, side, side
    found = effkernels.explain(network, torch.zeros(shape, device=where, dtype=torch_dtype(dtype)))
    if as_json:
        print_json(_document(found))
    else:
        console().print(printable(found), soft_wrap=True)


def _document(found: Explanation) -> dict[str, Any]:
    return {
        "model": found.model,
        "input_shape": found.input_shape,
        "dtype": str(found.dtype).removeprefix("torch."),
        "device": str(found.device),
        "calls": found.calls,
        "bytes": found.bytes,
        "flops": found.flops,
        "notes": found.notes,
        "rows": [
            {**asdict(row), "dtype": str(row.dtype).removeprefix("torch.")} for row in found.rows
        ],
    }
