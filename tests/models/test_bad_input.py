"""Wrong names, options and inputs each raise a clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import effkernels

MODEL = effkernels.efficientnet_b0(num_classes=2).eval()
X = torch.randn(1, 3, 32, 32)

INPUTS: dict[str, tuple[type[Exception], str, Any]] = {
    "not a tensor": (TypeError, "must be a tensor, got list", [1, 2]),
    "one image": (ValueError, r"got shape \(3, 32, 32\): add a batch dimension", X[0]),
    "two dimensions": (ValueError, r"\(N, C, H, W\)", X[0, 0]),
    "int64": (TypeError, "uint8 pixels from 0 to 255, got torch.int64", X.long()),
    "grey bytes": (ValueError, "must have 3 channels, got shape", X[:, :1].byte()),
    "bytes on another device": (ValueError, "input is on meta", X.byte().to("meta")),
    "grey": (ValueError, "must have 3 channels, got shape", X[:, :1]),
    "NHWC": (ValueError, r"use x.permute\(0, 3, 1, 2\)", X.permute(0, 2, 3, 1)),
    "no rows": (ValueError, "at least 1 x 1 pixel", X[:, :, :0]),
    "double": (TypeError, "input is torch.float64, the model torch.float32", X.double()),
    "other device": (ValueError, "input is on meta, the model on cpu", X.to("meta")),
}

OPTIONS: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "typo": (
        ValueError,
        "no model named 'efficentnet_b0': did you mean efficientnet_b0",
        lambda: effkernels.create_model("efficentnet_b0"),
    ),
    "dashes": (
        ValueError,
        "did you mean efficientnet_b4",
        lambda: effkernels.create_model("EfficientNet-B4"),
    ),
    "another family": (ValueError, "list_models", lambda: effkernels.create_model("zzz")),
    "classes": (ValueError, "num_classes", lambda: effkernels.efficientnet_b0(num_classes=-1)),
    "half a class": (
        ValueError,
        "num_classes",
        lambda: effkernels.efficientnet_b0(num_classes=1.5),
    ),
    "channels": (ValueError, "in_channels", lambda: effkernels.efficientnet_b0(in_channels=0)),
    "dropout": (
        ValueError,
        r"dropout must lie in \[0, 1\)",
        lambda: effkernels.efficientnet_b0(dropout=1.0),
    ),
    "drop path": (ValueError, "drop_path", lambda: effkernels.efficientnet_b0(drop_path=-0.1)),
    "padding": (
        ValueError,
        "'symmetric' or 'same', got 'valid'",
        lambda: effkernels.efficientnet_b0(padding="valid"),
    ),
    "eps": (ValueError, "bn_eps must be above 0", lambda: effkernels.efficientnet_b0(bn_eps=0.0)),
    "momentum": (
        ValueError,
        "PyTorch's sense",
        lambda: effkernels.efficientnet_b0(bn_momentum=1.5),
    ),
    "dtype": (TypeError, "floating-point", lambda: effkernels.efficientnet_b0(dtype=torch.int8)),
    "indices": (
        ValueError,
        "out_indices needs features_only=True",
        lambda: effkernels.efficientnet_b0(out_indices=(1,)),
    ),
    "source alone": (
        ValueError,
        "give weights too",
        lambda: effkernels.efficientnet_b0(source="timm/tf_efficientnet_b0"),
    ),
}


@pytest.mark.parametrize("case", INPUTS)
def test_bad_input(case: str) -> None:
    error, message, x = INPUTS[case]
    with pytest.raises(error, match=message):
        MODEL(x)


@pytest.mark.parametrize("case", OPTIONS)
def test_bad_option(case: str) -> None:
    error, message, call = OPTIONS[case]
    with pytest.raises(error, match=message):
        call()
