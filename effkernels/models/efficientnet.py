"""EfficientNet (Tan and Le 2019, arXiv 1905.11946) and its feature extractor."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from effkernels.dispatch import autocast_enabled
from effkernels.models.config import EfficientNetConfig
from effkernels.models.inference import Parts, run_whole
from effkernels.models.timm_config import timm_config
from effkernels.nn import ConvBnAct, MBConv
from effkernels.nn._plain import any_global_hook, is_plain
from effkernels.preprocessing import Preprocessing, pixel_norm
from effkernels.reference import normalise


class _Trunk(nn.Module):
    """Stem and stages: what the classifier and the feature extractor share."""

    def __init__(self, config: EfficientNetConfig, in_channels: int, last_stage: int) -> None:
        super().__init__()
        config.check_buildable()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        self.config = config
        self.in_channels = in_channels
        size = config.resolution
        # The released weights were evaluated with this crop; loaded weights bring their own values.
        self.preprocessing = Preprocessing(size=size, crop_fraction=size / (size + 32))
        self.grad_checkpointing = False
        self.fused = False
        self.stem = ConvBnAct(
            in_channels,
            config.scaled_stem_channels,
            3,
            stride=config.stem_stride,
            **self._options(),
        )
        stages: list[nn.Sequential] = []
        for block in config.blocks():
            if block.stage > last_stage:
                break
            if block.index == 0:
                stages.append(nn.Sequential())
            stages[-1].append(
                MBConv(
                    block.in_channels,
                    block.out_channels,
                    block.kernel_size,
                    stride=block.stride,
                    expand_ratio=block.expand_ratio,
                    squeeze_channels=block.squeeze_channels,
                    drop_path=block.drop_path,
                    **self._options(),
                )
            )
        self.stages = nn.ModuleList(stages)

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """``preprocessing`` in the form that timm's ``resolve_data_config`` reads."""
        return timm_config(self)

    default_cfg = pretrained_cfg  # the name in timm before 0.8

    def _options(self) -> dict[str, Any]:
        config = self.config
        return {
            "activation": config.activation,
            "padding": config.padding,
            "bn_eps": config.bn_eps,
            "bn_momentum": config.bn_momentum,
        }

    def _first_map(self, x: Tensor) -> Tensor:
        """What the stem makes of a batch of images, checked. In NHWC: once for the whole network."""
        self._check_images(x)
        if x.dtype == torch.uint8:
            mean, std = self._pixel_norm(x)
            if is_plain(self.stem, ConvBnAct) and not any_global_hook():
                return self.stem(x, mean, std)  # type: ignore[no-any-return]
            x = normalise(x, mean, std, self.stem.conv.weight.dtype)
        return self.stem(x.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]

    def _pixel_norm(self, x: Tensor) -> list[Tensor]:
        """Mean and standard deviation of pixels from 0 to 255 where ``x`` has such; of others nothing."""
        if x.dtype != torch.uint8:
            return []
        return list(pixel_norm(self.preprocessing, x.device))

    def _check_images(self, x: Tensor) -> None:
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
        if x.shape[1] != self.in_channels:
            hint = ""
            if x.shape[3] == self.in_channels:
                hint = ": (N, H, W, C)? use x.permute(0, 3, 1, 2)"
            raise ValueError(
                f"the input must have {self.in_channels} channels, got shape {tuple(x.shape)}{hint}"
            )
        if x.shape[2] < 1 or x.shape[3] < 1:
            raise ValueError(f"the input needs at least 1 x 1 pixel, got shape {tuple(x.shape)}")
        if x.dtype == torch.uint8:
            self._check_preprocessing()
        weight = self.stem.conv.weight
        if x.dtype not in (weight.dtype, torch.uint8) and not autocast_enabled(x.device.type):
            raise TypeError(
                f"the input is {x.dtype}, the model {weight.dtype}: convert one of them, or use "
                f"torch.autocast"
            )
        if x.device != weight.device:
            raise ValueError(f"the input is on {x.device}, the model on {weight.device}: move one")

    def _check_preprocessing(self) -> None:
        """It must say how uint8 images are normalised."""
        found = self.preprocessing
        if not isinstance(found, Preprocessing):
            raise ValueError(
                "uint8 images are normalised as model.preprocessing says, which is "
                f"{type(found).__name__}: set it, or give floating-point images, normalised"
            )
        if len(found.mean) != self.in_channels:
            raise ValueError(
                f"uint8 images are normalised as model.preprocessing says, for {len(found.mean)} "
                f"channels, and the model has in_channels={self.in_channels}: give "
                "floating-point images, normalised"
            )

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            y: Tensor = checkpoint(stage, x, use_reentrant=False)
        else:
            y = stage(x)
        return y

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the stages' inputs for the backward pass and compute the rest again there."""
        self.grad_checkpointing = enable

    @torch.no_grad()
    def initialise(self) -> None:
        """Random weights as in the authors' TensorFlow code; BatchNorm at its identity.

        Convolutions: normal with variance 2 / (kernel area * output channels per group). Linear: uniform
        within 1 / sqrt(number of classes). Biases: 0.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                module.weight.normal_(0.0, math.sqrt(2.0 / fan_out))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Linear):
                bound = 1.0 / math.sqrt(module.out_features)
                module.weight.uniform_(-bound, bound)
                module.bias.zero_()

    def train(self, mode: bool = True) -> _Trunk:
        """As ``nn.Module.train``.

        Raises:
            NotImplementedError: the model is a fused copy.
        """
        if mode and getattr(self, "fused", False):
            raise NotImplementedError(
                "a fused model has no BatchNorm and cannot train: train the model it was made from"
            )
        super().train(mode)
        return self

    def _fuse(self) -> _Trunk:
        fused = copy.deepcopy(self).eval().requires_grad_(False)
        for module in fused.modules():
            if isinstance(module, ConvBnAct):
                module.fold()
        fused.fused = True
        return fused


class EfficientNet(_Trunk):
    """An image classifier. Made by ``effkernels.efficientnet_b0`` and its kin, or ``create_model``.

    In eval mode every block runs as one fused op on the fastest backend; in training as ordinary modules.

    Attributes:
        config: the architecture.
        stem, stages, head, classifier: its parts; ``classifier`` is ``nn.Identity`` without classes.
        preprocessing: how to prepare images: the loaded weights' own, else ImageNet's usual.
    """

    def __init__(
        self, config: EfficientNetConfig, *, num_classes: int = 1000, in_channels: int = 3
    ) -> None:
        super().__init__(config, in_channels, last_stage=len(config.stages) - 1)
        self.head = ConvBnAct(
            list(config.blocks())[-1].out_channels,
            config.scaled_head_channels,
            1,
            **self._options(),
        )
        self.dropout = nn.Dropout(config.dropout)
        self.num_classes = num_classes
        self.classifier = self._classifier(num_classes)

    def _classifier(self, num_classes: int) -> nn.Module:
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
            raise ValueError(
                f"num_classes must be an int, at least 0 (0: no classifier), got {num_classes!r}"
            )
        features = self.config.scaled_head_channels
        return nn.Linear(features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) images to the (N, head channels, H / 32, W / 32) last feature map."""
        x = self._first_map(x)
        for stage in self.stages:
            x = self._run(stage, x)
        y: Tensor = self.head(x)
        return y

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last feature map to (N, num_classes) logits; with ``pre_logits`` to (N, head channels)."""
        x = x.mean((2, 3))
        if pre_logits:
            return x
        y: Tensor = self.classifier(self.dropout(x))
        return y

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) images to (N, num_classes) logits, in the model's dtype.

        Args:
            x: floating point, normalised; or uint8, pixels from 0 to 255 (of the size and crop that
                ``preprocessing`` gives), which are normalised with its mean and std as the stem reads them.

        Raises:
            ValueError, TypeError: a shape, dtype or device that does not fit the model; uint8 images and a
                model whose ``preprocessing`` is None, or not for its number of channels.
        """
        if type(self) is EfficientNet:
            self._check_images(x)
            found = run_whole(self, self._parts, x, self._pixel_norm(x))
            if found is not None:
                if not found.pooled:
                    return found.values
                features = found.values.to(self.stem.conv.weight.dtype)
                logits: Tensor = self.classifier(self.dropout(features))
                return logits
        return self.forward_head(self.forward_features(x))

    def _parts(self) -> Parts:
        blocks = [block for stage in self.stages for block in cast(nn.Sequential, stage)]
        layers = [self.stem, *blocks, self.head]
        return Parts(layers, self.dropout, self.classifier, [self.stages, *self.stages])

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a freshly initialised one; 0 classes: return pooled features."""
        weight = self.stem.conv.weight
        classifier = self._classifier(num_classes).to(weight.device, weight.dtype)
        if isinstance(classifier, nn.Linear):
            bound = 1.0 / math.sqrt(num_classes)
            nn.init.uniform_(classifier.weight, -bound, bound)
            nn.init.zeros_(classifier.bias)
        self.classifier, self.num_classes = classifier, num_classes

    def fuse(self) -> EfficientNet:
        """An inference copy with every BatchNorm folded into its convolution. This model is untouched."""
        return cast(EfficientNet, self._fuse())


class EfficientNetFeatures(_Trunk):
    """The trunk as a backbone: a list of feature maps, one per resolution.

    Args:
        out_indices: which of the strides 2, 4, 8, 16, 32 (indices 0 to 4) to return; negative ones count
            from the end. Stages behind the last one are not built.
    """

    def __init__(
        self,
        config: EfficientNetConfig,
        *,
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
    ) -> None:
        ends = _resolution_ends(config)
        indices = range(len(ends)) if out_indices is None else out_indices
        if not len(indices) or any(not -len(ends) <= i < len(ends) for i in indices):
            raise ValueError(
                f"out_indices must be some of 0 to {len(ends) - 1} (strides "
                f"{config.reduction(ends[0])} to {config.reduction(ends[-1])}), got {tuple(indices)}"
            )
        self.out_indices = tuple(i % len(ends) for i in indices)
        taken = [ends[i] for i in self.out_indices]
        super().__init__(config, in_channels, last_stage=max(taken))
        channels = {block.stage: block.out_channels for block in config.blocks()}
        self._taken = taken
        self.channels = tuple(channels[stage] for stage in taken)
        """Channels of each returned map."""
        self.reductions = tuple(config.reduction(stage) for stage in taken)
        """Stride of each returned map relative to the image."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, in_channels, H, W) images to the chosen feature maps, in the order of ``out_indices``.

        Images and errors are those of :meth:`EfficientNet.forward`.
        """
        x = self._first_map(x)
        found: dict[int, Tensor] = {}
        for index, stage in enumerate(self.stages):
            x = self._run(stage, x)
            found[index] = x
        return [found[stage] for stage in self._taken]

    def fuse(self) -> EfficientNetFeatures:
        """An inference copy with every BatchNorm folded into its convolution. This model is untouched."""
        return cast(EfficientNetFeatures, self._fuse())


def _resolution_ends(config: EfficientNetConfig) -> list[int]:
    """The last stage at each resolution."""
    strides = [stage.stride for stage in config.stages]
    return [s for s in range(len(strides)) if s + 1 == len(strides) or strides[s + 1] > 1]
