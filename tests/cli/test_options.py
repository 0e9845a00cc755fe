"""The choice of a device, on simulated machines."""

from __future__ import annotations

import pytest
import torch

from effkernels.cli.options import choose_device


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch behave as on a machine with two CUDA devices."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "GPU of this test")


@pytest.mark.usefixtures("two_gpus")
def test_cuda_is_the_default_if_available() -> None:
    assert choose_device(None) == (torch.device("cuda"), "GPU of this test, the default")
    assert choose_device("cuda:1") == (torch.device("cuda:1"), "GPU of this test, requested")
    assert choose_device("cpu") == (torch.device("cpu"), "requested")


@pytest.mark.usefixtures("two_gpus")
def test_a_device_number_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="CUDA devices are cuda:0 to cuda:1"):
        choose_device("cuda:2")


def test_a_torch_without_cuda_is_distinguished_from_a_missing_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert choose_device(None) == (torch.device("cpu"), "torch finds no CUDA device")
    monkeypatch.setattr(torch.version, "cuda", None)
    device, reason = choose_device(None)
    assert device == torch.device("cpu")
    assert reason.endswith("is built without CUDA")
    with pytest.raises(ValueError, match="built without CUDA; use --device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize("wanted", ["toaster", "cuda:x", "", "cpu:-1"])
def test_unknown_devices_are_refused(wanted: str) -> None:
    with pytest.raises(ValueError, match="is no device; accepted"):
        choose_device(wanted)
