"""EfficientNet (Tan and Le 2019, arXiv 1905.11946) and its feature extractor."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from effkernels.dispatch import layers_traced
from effkernels.models import inference
from effkernels.models.blocks import make_block
from effkernels.models.cam import class_activation_map
from effkernels.models.config import EfficientNetConfig
from effkernels.models.images import check_images, is_nhwc, nhwc
from effkernels.models.parts import methods_of
from effkernels.models.timm_config import timm_config
from effkernels.nn import ConvBnAct
from effkernels.nn._plain import any_global_hook, is_plain
from effkernels.nn.conv_bn_act import plain_conv
from effkernels.preprocessing import Preprocessing, pixel_norm
from effkernels.reference import normalise


class _Trunk(nn.Module):
    """Stem and stages: what the classifier and the feature extractor share."""

    stem_pool: nn.Module | None

    def __init__(self, config: EfficientNetConfig, in_channels: int, last_stage: int) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        self.config = config
        self._built_in_channels = in_channels
        size = config.resolution
        # The released weights were evaluated with this crop; loaded weights bring their own values.
        self.preprocessing = Preprocessing(size=size, crop_fraction=size / (size + 32))
        self.grad_checkpointing = False
        self.fused = False
        self.stem = ConvBnAct(
            in_channels,
            config.scaled_stem_channels,
            config.stem_kernel_size,
            stride=config.stem_stride,
            **self._options(),
        )
        pool = nn.MaxPool2d(3, stride=2, padding=1) if config.stem_pool else None
        self.register_module("stem_pool", pool)
        stages: list[nn.Sequential] = []
        for block in config.blocks():
            if block.stage > last_stage:
                break
            if block.index == 0:
                stages.append(nn.Sequential())
            stages[-1].append(make_block(block, **self._options()))
        self.stages = nn.Sequential(*stages)

    @property
    def in_channels(self) -> int:
        """Channels of the images: what the stem takes now, or took when built where that cannot be known."""
        conv = self._stem_conv()
        return self._built_in_channels if conv is None else conv.weight.shape[1] * conv.groups

    def _stem_conv(self) -> nn.Conv2d | None:
        """The convolution that takes the images; None where other modules may see them first."""
        stem = self.stem
        if not is_plain(stem, ConvBnAct) or not plain_conv(stem.conv):
            return None
        conv: nn.Conv2d = stem.conv
        return conv

    def _example(self) -> Tensor:
        """A tensor of the dtype that the stem computes in, and on its device, as far as parameters say."""
        parameters = (p for part in (self.stem, self) for p in part.parameters())
        return next((p for p in parameters if p.is_floating_point()), torch.empty(0))

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
        """What the stages take, of a batch of images, checked."""
        y = self._stem_map(x)
        return y if self.stem_pool is None else self.stem_pool(y)

    def _stem_map(self, x: Tensor) -> Tensor:
        """What the stem makes of a batch of images, checked. In NHWC: once for the whole network."""
        if layers_traced(x) and not (isinstance(x, Tensor) and x.dtype == torch.uint8):
            return self.stem(x)  # type: ignore[no-any-return]
        self._check_images(x)
        own = self._stem_conv() is not None
        if isinstance(x, Tensor) and x.dtype == torch.uint8:
            mean, std = self._pixel_norm(x)
            if own and not any_global_hook():
                return self.stem(x, mean, std)  # type: ignore[no-any-return]
            x = normalise(x, mean, std, self._example().dtype)
        # Another stem may depend on the layout: it gets what came.
        return nhwc(self.stem(nhwc(x) if own else x))

    def _pixel_norm(self, x: Tensor) -> list[Tensor]:
        """Mean and standard deviation of pixels from 0 to 255 where ``x`` has such; of others nothing."""
        if x.dtype != torch.uint8:
            return []
        return list(pixel_norm(self.preprocessing, x.device))

    def _check_images(self, x: Tensor) -> None:
        check_images(x, self._stem_conv(), self.preprocessing)

    def _run_stages(self, x: Tensor) -> Tensor:
        if not is_plain(self.stages, nn.Sequential):
            return self._run(self.stages, x)
        # Not self.stages(x): that would keep the stem's map, the largest of all, until the last stage is done.
        for stage in self.stages:
            x = self._run(stage, x)
        return x

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        y: Tensor
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            y = stage(x)
        elif torch.compiler.is_compiling():  # which repeats no change of a buffer by itself
            y = checkpoint(stage, x, use_reentrant=False)
        else:

            def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
                return nullcontext(), _unchanged_buffers(stage)

            y = checkpoint(stage, x, use_reentrant=False, context_fn=contexts)
        return y

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the stages' inputs for the backward pass and compute the rest again there.

        BatchNorm's running statistics change once a step, in the forward pass.
        """
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
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_parameters()
            elif isinstance(module, nn.Linear):
                bound = 1.0 / math.sqrt(module.out_features)
                module.weight.uniform_(-bound, bound)
                if module.bias is not None:
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

    def _apply(self, fn: Any, recurse: bool = True) -> _Trunk:
        """What ``to``, ``half`` and ``cuda`` do with all tensors; a plan must not keep the old ones alive."""
        inference.let_go(self)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As ``nn.Module.load_state_dict``."""
        inference.let_go(self)
        return super().load_state_dict(state_dict, strict, assign)

    def __prepare_scriptable__(self) -> nn.Module:
        """What torch.jit.script asks of a module before anything else."""
        raise NotImplementedError(
            "torch.jit.script cannot compile the models of effkernels: use torch.export.export(model, (x,)), or "
            "torch.jit.trace(model, x)"
        )

    def _fuse(self) -> _Trunk:
        fused = copy.deepcopy(self).eval().requires_grad_(False)
        modules = list(fused.modules())
        uses = Counter(id(child) for module in modules for child in module._modules.values())
        for module in modules:
            # A convolution that stands in two places has two BatchNorms and one weight.
            if isinstance(module, ConvBnAct) and uses[id(module.conv)] == 1:
                module.fold()
        fused.fused = True
        return fused


@contextmanager
def _unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Let ``module`` change copies of its buffers: BatchNorm's running statistics, for example."""
    kept = [(m._buffers, dict(m._buffers)) for m in module.modules() if type(m._buffers) is dict]
    try:
        for buffers, values in kept:
            buffers.update({k: None if v is None else v.clone() for k, v in values.items()})
        yield
    finally:
        for buffers, values in kept:
            buffers.update(values)


class EfficientNet(_Trunk):
    """An image classifier. Made by ``effkernels.efficientnet_b0`` and its kin, or ``create_model``.

    In eval mode every MBConv block runs as one fused op on the fastest backend, other blocks layer by layer; in
    training all run as ordinary modules.
    Any part may be replaced, wrapped, patched, hooked or compiled, as in any module: what the ops do not
    compute then runs module by module.

    Attributes:
        config: the architecture, as built.
        stem, stages, head, dropout, classifier: its parts, which run in this order, with a mean over height
            and width behind ``head``. ``stages`` is an ``nn.Sequential`` of ``nn.Sequential`` of blocks;
            ``classifier`` is ``nn.Identity`` without classes, and so is ``head`` where the architecture has none.
        stem_pool: a max-pool between stem and stages; None where the architecture has none.
        preprocessing: how to prepare images: the loaded weights' own, else ImageNet's usual.
    """

    def __init__(
        self, config: EfficientNetConfig, *, num_classes: int = 1000, in_channels: int = 3
    ) -> None:
        super().__init__(config, in_channels, last_stage=len(config.stages) - 1)
        self.head: nn.Module = nn.Identity()
        if config.head_channels:
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
        return nn.Linear(self._features(), num_classes) if num_classes else nn.Identity()

    def _features(self) -> int:
        """Channels that the classifier takes."""
        head, classifier = self._modules.get("head"), self._modules.get("classifier")
        if isinstance(head, ConvBnAct) and is_plain(head, ConvBnAct) and plain_conv(head.conv):
            return head.conv.weight.shape[0]
        if isinstance(classifier, nn.Linear):
            return classifier.in_features
        return self.config.scaled_head_channels

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) images to the last feature map, (N, head channels, ceil(H / 32), ceil(W / 32)).

        In the memory layout of ``x``: NCHW, or channels_last.
        """
        channels_last = not isinstance(x, Tensor) or is_nhwc(x)
        maps = None
        if type(self) is EfficientNet and not layers_traced(x):
            maps = inference.maps(self, x, None)
        y = self._last_map(x) if maps is None else maps[0]
        return y if channels_last or not isinstance(y, Tensor) else y.contiguous()

    def _last_map(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self._run_stages(self._first_map(x)))
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
        if type(self) is EfficientNet and not layers_traced(x):
            logits = inference.run(self, _METHODS, x)
            if logits is not None:
                return logits
        own = type(self).forward_features is _METHODS["forward_features"]
        if own and "forward_features" not in self.__dict__:
            return self.forward_head(self._last_map(x))  # in whichever layout
        return self.forward_head(self.forward_features(x))

    def cam(self, x: Tensor, class_index: int | Tensor | None = None) -> Tensor:
        """Class activation maps: what each place of the last feature map adds to the logit of a class.

        Exact for this architecture, without gradients: the mean of a map over its places, plus the
        classifier's bias, is the logit. After ReLU and scaling to [0, 1] it is the map of Grad-CAM.

        Args:
            x: images as for :meth:`forward`. In training mode BatchNorm uses their own statistics.
            class_index: of all images, or (N,) integers; None for the most likely class of each image.

        Returns:
            (N, ceil(H / 32), ceil(W / 32)), float32 where the model computes in 16 bits. Positive where the image
            speaks for the class.

        Raises:
            ValueError, TypeError: a class that does not exist, a classifier that is not linear, and
                images as in :meth:`forward`.

        Source: Zhou et al. 2016 (arXiv 1512.04150); Tan and Le 2019, Figure 7.
        """
        return class_activation_map(self, x, class_index)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a freshly initialised one; 0 classes: return pooled features.

        It takes as many features as ``head`` makes now, or as the present classifier takes where that cannot
        be known.
        """
        example = self._example()
        classifier = self._classifier(num_classes).to(example.device, example.dtype)
        if isinstance(classifier, nn.Linear):
            bound = 1.0 / math.sqrt(num_classes)
            nn.init.uniform_(classifier.weight, -bound, bound)
            nn.init.zeros_(classifier.bias)
        self.classifier, self.num_classes = classifier, num_classes

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of parameter names by depth, as timm's layer-wise learning rates want them.

        The stem is the lowest group, the classifier the highest; the head goes with the last block, as in timm.

        Args:
            coarse: by stages instead of by blocks.
        """
        block = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        with_previous = (99999,)  # timm's mark
        return {"stem": r"^stem", "blocks": [(block, None), (r"^head", with_previous)]}

    def fuse(self) -> EfficientNet:
        """An inference copy with every BatchNorm folded into its convolution. This model is untouched."""
        return cast(EfficientNet, self._fuse())


_METHODS = methods_of(EfficientNet)


class EfficientNetFeatures(_Trunk):
    """The trunk as a backbone: a list of feature maps, one per resolution, in channels_last memory.

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

        The maps are channels_last, whatever the layout of the images: use ``reshape`` in the place of
        ``view`` on them. Images and errors are those of :meth:`EfficientNet.forward`.
        """
        if type(self) is EfficientNetFeatures and not layers_traced(x):
            maps = inference.maps(self, x, self._taken)
            if maps is not None:
                return maps
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
