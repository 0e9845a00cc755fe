"""Checks of option values that several subcommands share, and the choice of a device."""

from __future__ import annotations

import torch


def torch_dtype(name: str) -> torch.dtype:
    """The torch.dtype of this name."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def check_at_least_1(option: str, value: int) -> None:
    """Check that a count is at least 1.

    Raises:
        ValueError: ``value`` is below 1.
    """
    if value < 1:
        raise ValueError(f"{option} must be at least 1, got {value}")


def choose_device(wanted: str | None) -> tuple[torch.device, str]:
    """The device to run on, and why that one.

    Args:
        wanted: a torch device name; None for CUDA if available, else the CPU.

    Raises:
        ValueError: the kind of device is not supported, or the device does not exist.
    """
    if wanted is None:
        absent = _why_no_cuda()
        if absent is None:
            return torch.device("cuda"), f"{torch.cuda.get_device_name()}, the default"
        return torch.device("cpu"), absent
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ValueError(
            f"--device {wanted!r} is no device; accepted: cpu, cuda, cuda:0, cuda:1 ..."
        ) from None
    if device.type == "cpu":
        return device, "requested"
    if device.type != "cuda":
        raise ValueError(f"--device {wanted!r}: only cpu and cuda devices are supported here")
    absent = _why_no_cuda()
    if absent is not None:
        raise ValueError(f"--device {wanted!r}: {absent}; use --device cpu")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise ValueError(
            f"--device {wanted!r}: CUDA devices are cuda:0 to cuda:{torch.cuda.device_count() - 1}"
        )
    return device, f"{torch.cuda.get_device_name(device)}, requested"


def _why_no_cuda() -> str | None:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    return None
