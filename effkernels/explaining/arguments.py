"""What ``explain`` and ``profile`` take."""

from __future__ import annotations

from torch import Tensor, nn

from effkernels.models import EfficientNet, EfficientNetFeatures
from effkernels.ops._arguments import check_images


def check_arguments(caller: str, model: nn.Module, input: Tensor) -> None:
    """Refuse what is no module or no images, what is compiled, and an input elsewhere than the model.

    Raises:
        TypeError, ValueError: the message begins with ``caller``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{caller}: model must be a torch.nn.Module, got {type(model).__name__}")
    if any(_compiled(module) for module in model.modules()):
        raise ValueError(
            f"{caller}: model is compiled by torch.compile: pass the module that it was compiled from"
        )
    check_images(caller, input, "input", uint8=True)
    if input.device.type == "meta":
        raise ValueError(
            f"{caller}: input is on the meta device: the model runs, so it needs real data"
        )
    devices = {t.device for t in (*model.parameters(), *model.buffers())} - {input.device}
    if devices:
        raise ValueError(
            f"{caller}: input is on {input.device}, model on {devices.pop()}: move one of them"
        )


def _compiled(module: nn.Module) -> bool:
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules


def model_name(model: nn.Module) -> str:
    """The model's name, or the name of its class."""
    if isinstance(model, (EfficientNet, EfficientNetFeatures)):
        return model.config.name
    return type(model).__name__
