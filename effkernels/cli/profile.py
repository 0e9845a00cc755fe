"""``effkernels profile``: where the time of a model goes on this processor."""

from __future__ import annotations

import torch

import effkernels
from effkernels.cli.options import check_at_least_1, torch_dtype
from effkernels.cli.output import console, print_json, printable
from effkernels.models.registry import get_config


def profile(
    *,
    model: str,
    resolution: int | None,
    batch_size: int,
    dtype: str,
    threads: int | None,
    runs: int,
    as_json: bool,
) -> None:
    """Print the time of each layer by kind of work, beside its bound; see ``effkernels profile --help``."""
    check_at_least_1("--batch-size", batch_size)
    check_at_least_1("--runs", runs)
    side = get_config(model).resolution if resolution is None else resolution
    check_at_least_1("--resolution", side)
    if threads is not None:
        check_at_least_1("--threads", threads)
    before = torch.get_num_threads()
    network = effkernels.create_model(model, dtype=torch_dtype(dtype)).eval()
    images = torch.zeros(batch_size, network.in_channels, side, side, dtype=torch_dtype(dtype))
    try:
        torch.set_num_threads(before if threads is None else threads)
        found = effkernels.profile(network, images, runs=runs)
    finally:
        torch.set_num_threads(before)
    if as_json:
        print_json(found.as_dict())
    else:
        console().print(printable(found), soft_wrap=True)
