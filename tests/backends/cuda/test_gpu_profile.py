"""Profiles of networks on a GPU: every launch has a row, times add up to what the network takes, nothing is changed."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import effkernels
from effkernels import EfficientNet, GpuProfile
from networks import model_on_gpu

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("on_the_kernels")]


def b0(dtype: torch.dtype = torch.bfloat16) -> EfficientNet:
    return model_on_gpu("efficientnet_b0", dtype)


def images(count: int, size: int = 224, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(count, 3, size, size, device="cuda").to(dtype)


def seconds_of_a_call(model: nn.Module, x: Tensor, calls: int = 10) -> float:
    """Of the device, which is held up until all calls are in its queue; the least of several times."""
    found = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(100_000_000)
        begin.record()
        for _ in range(calls):
            model(x)
        end.record()
        end.synchronize()
        found.append(1e-3 * begin.elapsed_time(end) / calls)
    return min(found)


def times_add_up(found: GpuProfile) -> None:
    """An event costs more than an empty pair of them, and a device's clock counts up to a microsecond."""
    assert found.queued
    assert 0.0 <= found.event < 20e-6
    allowance = 1.5e-6 * found.launches
    assert found.apart - allowance < found.seconds < 1.3 * found.apart + allowance
    assert found.whole < 1.05 * found.apart + 5e-6
    assert found.host > 0.0


@pytest.mark.parametrize("count", [1, 128])
def test_b0(count: int) -> None:
    model, x = b0(), images(count)
    expected = model(x)
    launches = effkernels.explain(model, x).launches
    found = effkernels.profile(model, x)
    assert isinstance(found, GpuProfile)
    assert torch.equal(model(x), expected)
    assert found.device == torch.cuda.get_device_name()
    assert found.launches == len(launches)
    assert {(row.kernel, row.layer) for row in found.rows} == {
        (launch.kernel, launch.layer) for launch in launches
    }
    for row in found.rows:
        assert 0.2e-6 < row.seconds < 20e-3, row
        assert row.low <= row.high, row
        assert row.bytes > 0, row
    assert found.memory_rate > 1e11
    assert found.flop_rate > 1e13
    # No launch takes less than a fifth of its bound, even where the L2 cache has all that it reads.
    assert all(row.seconds > 0.2 * row.bound for row in found.rows)
    times_add_up(found)
    assert 0.7 < found.whole / seconds_of_a_call(model, x) < 1.3
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["launches"] == len(launches)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_other_types(dtype: torch.dtype) -> None:
    model, x = b0(dtype), images(2, 96, dtype)
    expected = model(x)
    found = effkernels.profile(model, x, runs=5)
    assert torch.equal(model(x), expected)
    times_add_up(found)


def test_on_a_side_stream_and_under_inference_mode() -> None:
    model, x = b0(), images(2, 96)
    with torch.cuda.stream(torch.cuda.Stream()), torch.inference_mode():
        times_add_up(effkernels.profile(model, x, runs=5))


def test_maps() -> None:
    features = effkernels.create_model("efficientnet_b0", features_only=True)
    model = features.eval().to(torch.bfloat16).cuda()
    found = effkernels.profile(model, images(2, 96), runs=5)
    assert found.rows[0].name == "stem"
    times_add_up(found)


def test_given_rates() -> None:
    model, x = b0(), images(1, 64)
    found = effkernels.profile(model, x, runs=1, memory_rate=1e12, flop_rate=1e14)
    for row in found.rows:
        assert row.memory == pytest.approx(1e-12 * row.bytes)
        assert row.arithmetic == pytest.approx(1e-14 * row.flops)


def test_what_is_around_is_named() -> None:
    around = nn.Sequential(nn.AvgPool2d(2), b0(), nn.Linear(1000, 3).bfloat16().cuda()).eval()
    found = effkernels.profile(around, images(1, 128), runs=1)
    assert "avg_pool2d on torch" in found.around
    assert "addmm on torch" in found.around


def test_what_falls_back_is_named() -> None:
    """In one line: why, and which layers run elsewhere."""
    model, x = b0(), images(1, 64)
    model.classifier = nn.Linear(model.classifier.in_features, 0).bfloat16().cuda()
    with pytest.raises(ValueError, match="does not run as one call of network on the cuda backend"):
        effkernels.profile(model, x)
    model = b0()
    model.stages[2].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="there are hooks") as error:
        effkernels.profile(model, x)
    assert "\n" not in str(error.value)
    with (
        effkernels.use_backend("torch"),
        pytest.raises(ValueError, match=r"torch was requested.*not on it: stem"),
    ):
        effkernels.profile(b0(), x)
    with pytest.raises(ValueError, match=r"profile: input is on cuda:0, model on cpu"):
        effkernels.profile(b0().cpu(), x)
