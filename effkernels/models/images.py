"""What a model asks of the images that it is given, before anything runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from effkernels.dispatch import autocast_enabled
from effkernels.preprocessing import Preprocessing
from effkernels.reference.elementwise import channels_last


def check_images(x: Any, conv: nn.Conv2d | None, preprocessing: Any) -> None:
    """They must fit the convolution that takes them; and ``preprocessing`` must say how uint8 ones are normalised.

    Args:
        x: (N, C, H, W), floating point or uint8.
        conv: as it is now; None where other modules see the images first, which alone know what they take.
        preprocessing: the model's.

    Raises:
        ValueError, TypeError: what does not fit, and what would.
    """
    if conv is None:
        if isinstance(x, Tensor) and x.dtype == torch.uint8:
            _check_uint8(x, preprocessing, "these have ")
        return
    if not isinstance(x, Tensor):
        raise TypeError(
            f"the input must be a tensor, got {type(x).__name__}: see model.preprocessing"
        )
    if x.dim() != 4:
        hint = ": add a batch dimension with x[None]" if x.dim() == 3 else ""
        raise ValueError(f"the input must be (N, C, H, W), got shape {tuple(x.shape)}{hint}")
    if not x.is_floating_point() and x.dtype != torch.uint8:
        raise TypeError(
            f"the input must be floating point, normalised as model.preprocessing says, or "
            f"uint8 pixels from 0 to 255, got {x.dtype}"
        )
    weight = conv.weight
    channels = weight.shape[1] * conv.groups
    if x.shape[1] != channels:
        hint = ": (N, H, W, C)? use x.permute(0, 3, 1, 2)" if x.shape[3] == channels else ""
        raise ValueError(
            f"the input must have {channels} channels, got shape {tuple(x.shape)}{hint}"
        )
    if x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(f"the input needs at least 1 x 1 pixel, got shape {tuple(x.shape)}")
    if x.dtype == torch.uint8:
        _check_uint8(x, preprocessing, "the model has in_channels=")
    elif x.dtype != weight.dtype and not autocast_enabled(x.device.type):
        raise TypeError(
            f"the input is {x.dtype}, the model {weight.dtype}: convert one of them, or use "
            f"torch.autocast"
        )
    if x.device != weight.device:
        raise ValueError(f"the input is on {x.device}, the model on {weight.device}: move one")


def _check_uint8(x: Tensor, preprocessing: Any, owner: str) -> None:
    if not isinstance(preprocessing, Preprocessing):
        raise ValueError(
            "uint8 images are normalised as model.preprocessing says, which is "
            f"{type(preprocessing).__name__}: set it, or give floating-point images, normalised"
        )
    if x.dim() != 4:
        raise ValueError(f"uint8 images must be (N, C, H, W), got shape {tuple(x.shape)}")
    if len(preprocessing.mean) != x.shape[1]:
        raise ValueError(
            f"uint8 images are normalised as model.preprocessing says, for {len(preprocessing.mean)} "
            f"channels, and {owner}{x.shape[1]}: give floating-point images, normalised"
        )


def nhwc(x: Tensor) -> Tensor:
    """In channels_last memory, if it is a batch of maps."""
    if isinstance(x, Tensor) and x.dim() == 4:
        return channels_last(x)
    return x


def is_nhwc(x: Tensor) -> bool:
    """Whether a batch lies in channels_last memory, as far as its strides tell."""
    return x.dim() == 4 and x.shape[1] > 1 and 0 < x.stride(1) < x.stride(3)
