"""``effkernels explain``: which kernel runs for each layer of a model here, at what cost, and why that one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import torch
import typer

import effkernels
from effkernels.cli.options import (
    BatchSizeOption,
    DeviceOption,
    DType,
    DTypeOption,
    JsonOption,
    ResolutionOption,
    check_at_least_1,
    choose_device,
)
from effkernels.cli.output import console, print_json, printable
from effkernels.explaining import Explanation
from effkernels.models.registry import get_config


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Runs with random weights.")],
    resolution: ResolutionOption = None,
    batch_size: BatchSizeOption = 1,
    dtype: DTypeOption = DType.float32,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which kernel runs for each layer of MODEL here, and why.

    The model runs once. MB: the least that a layer reads and writes, weights included.
    EFFKERNELS_BACKEND=torch and its kin show what another backend would do.
    """
    check_at_least_1("--batch-size", batch_size)
    side = get_config(model).resolution if resolution is None else resolution
    check_at_least_1("--resolution", side)
    where, _ = choose_device(device)
    network = effkernels.create_model(model, device=where, dtype=dtype.torch).eval()
    shape = batch_size, network.in_channels, side, side
    found = effkernels.explain(network, torch.zeros(shape, device=where, dtype=dtype.torch))
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
