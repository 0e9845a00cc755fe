"""``effkernels profile``: where the time of a model goes on this processor, or on a GPU."""

from __future__ import annotations

import torch

import effkernels
from effkernels.cli.options import check_at_least_1, choose_device, torch_dtype
from effkernels.cli.output import console, print_json, printable
from effkernels.models.registry import get_config


def profile(
    *,
    model: str,
    resolution: int | None,
    batch_size: int,
    dtype: str,
    device: str | None,
    threads: int | None,
    runs: int,
    bandwidth: float | None,
    tflops: float | None,
    as_json: bool,
) -> None:
    """Print the time of each layer or kernel, beside its bound; see ``effkernels profile --help``."""
    check_at_least_1("--batch-size", batch_size)
    check_at_least_1("--runs", runs)
    side = get_config(model).resolution if resolution is None else resolution
    check_at_least_1("--resolution", side)
    if threads is not None:
        check_at_least_1("--threads", threads)
    rates = {"--bandwidth": bandwidth, "--tflops": tflops}
    for option, rate in rates.items():
        if rate is not None and not rate > 0:
            raise ValueError(f"{option} must be above 0, got {rate}")
    where, _ = choose_device("cpu" if device is None and threads is not None else device)
    if where.type == "cuda" and threads is not None:
        raise ValueError(f"--threads is for --device cpu, not {where}")
    if where.type == "cpu":
        for option, rate in rates.items():
            if rate is not None:
                raise ValueError(f"{option} is for --device cuda: that of the CPU is measured")
    before = torch.get_num_threads()
    network = effkernels.create_model(model, device=where, dtype=torch_dtype(dtype)).eval()
    shape = batch_size, network.in_channels, side, side
    images = torch.zeros(shape, device=where, dtype=torch_dtype(dtype))
    try:
        torch.set_num_threads(before if threads is None else threads)
        found = effkernels.profile(
            network,
            images,
            runs=runs,
            memory_rate=None if bandwidth is None else 1e9 * bandwidth,
            flop_rate=None if tflops is None else 1e12 * tflops,
        )
    finally:
        torch.set_num_threads(before)
    if as_json:
        print_json(found.as_dict())
    else:
        console().print(printable(found), soft_wrap=True)
