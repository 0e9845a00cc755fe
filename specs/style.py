"""What the tensors of a case look like: dtype, layout, strides, BatchNorm's vectors, special values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from effkernels import ops
from effkernels.reference.elementwise import accumulate_dtype

NOT_FINITE = (torch.nan, torch.inf, -torch.inf)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = ("nhwc", "offset", "nchw", "sliced", "expanded")
WEIGHTS = ("contiguous", "strided", "channels_last", "expanded")
NORMS = ("float32", "same", "none")
EPS = 1e-3
"""Of every BatchNorm."""


@dataclass(frozen=True)
class Style:
    """What a case's tensors look like.

    ``layout``: of the images. "offset" is NHWC from the second element of a storage, so that nothing is aligned.
    ``weights``: "strided" ones are every second column of a larger tensor; "channels_last" ones have that memory
    format, and 4 dimensions also for a 1x1 kernel; "expanded" ones repeat one output channel. ``norm``: the dtype
    of BatchNorm's vectors, "float32" or that of the images ("same"); or "none" for no BatchNorm. ``bias``:
    whether convolutions have one; ``gate_bias``: the same for the two products of a gate; None means as ``bias``.
    ``strange``: how many values of x are NaN or infinite. ``threads``: with how many the CPU kernels compute.
    ``seed``: of all random numbers.
    """

    dtype: torch.dtype = torch.float32
    layout: str = "nhwc"
    weights: str = "contiguous"
    norm: str = "float32"
    bias: bool = False
    gate_bias: bool | None = None
    strange: int = 0
    threads: int = 2
    seed: int = 0

    @property
    def wide(self) -> torch.dtype:
        """The dtype of gates and pooled values."""
        return accumulate_dtype(self.dtype)

    def images(self, *shape: int, uint8: bool = False) -> Tensor:
        """(N, C, H, W) of finite values."""

        def draw(*shape: int) -> Tensor:
            if uint8:
                return torch.randint(256, shape, dtype=torch.uint8)
            return torch.randn(shape, dtype=self.wide).to(self.dtype)

        n, c, h, w = shape
        if self.layout == "nchw":
            return draw(*shape)
        if self.layout == "sliced":
            return draw(n, h + 2, w + 1, c + 3)[:, 2:, 1:, 3:].permute(0, 3, 1, 2)
        if self.layout == "expanded":
            return draw(n, c, 1, w).expand(shape)
        first = 1 if self.layout == "offset" else 0
        return draw(first + n * h * w * c)[first:].view(n, h, w, c).permute(0, 3, 1, 2)

    def x(self, *shape: int, uint8: bool = False) -> Tensor:
        """Images, with ``strange`` values unless they are integers."""
        images = self.images(*shape, uint8=uint8)
        if not self.strange or uint8 or not images.numel():
            return images
        images = images.clone()
        for i in range(self.strange):
            place = tuple(int(torch.randint(size, ())) for size in shape)
            images[place] = NOT_FINITE[i % len(NOT_FINITE)]
        return images

    def weight(self, *shape: int) -> Tensor:
        """A weight, scaled so that the result is about as large as the input."""
        if self.weights == "channels_last" and len(shape) == 2:
            shape = (*shape, 1, 1)
        scale = max(1, torch.Size(shape[1:]).numel()) ** -0.5

        def draw(*shape: int) -> Tensor:
            return (torch.randn(shape, dtype=self.wide) * scale).to(self.dtype)

        if self.weights == "strided":
            return draw(*shape[:-1], 2 * shape[-1])[..., ::2]
        if self.weights == "expanded":
            return draw(1, *shape[1:]).expand(shape)
        if self.weights == "channels_last":
            return draw(*shape).contiguous(memory_format=torch.channels_last)
        return draw(*shape)

    def vector(self, channels: int, dtype: torch.dtype, low: float, high: float) -> Tensor:
        """Uniform between ``low`` and ``high``."""
        count = 2 * channels if self.weights == "strided" else channels
        made = torch.empty(count, dtype=accumulate_dtype(dtype)).uniform_(low, high).to(dtype)
        return made[::2] if self.weights == "strided" else made

    def _vector_dtype(self) -> torch.dtype:
        return self.dtype if self.norm == "same" else self.wide

    def image_norm(self, channels: int, *, uint8: bool) -> dict[str, Tensor]:
        """Mean and standard deviation of images."""
        limits = ((100, 150), (40, 70)) if uint8 else ((-1, 1), (0.5, 2))
        mean, std = (self.vector(channels, self._vector_dtype(), *pair) for pair in limits)
        return {"mean": mean, "std": std}

    def batch_norm(self, channels: int) -> ops.BatchNorm | None:
        """Vectors that all differ from their defaults; None if there is no BatchNorm."""
        if self.norm == "none":
            return None
        limits = ((0.5, 1.5), (-0.5, 0.5), (-0.5, 0.5), (0.2, 1.2))
        return ops.BatchNorm(
            *(self.vector(channels, self._vector_dtype(), *pair) for pair in limits), EPS
        )

    def biases(self, channels: int) -> Tensor:
        """Biases of a convolution or of a product."""
        return self.vector(channels, self.dtype, -0.5, 0.5)

    def conv(self, *shape: int) -> ops.Conv:
        """A convolution whose weight has this shape."""
        weight = self.weight(*shape)
        return ops.Conv(
            weight, self.biases(shape[0]) if self.bias else None, self.batch_norm(shape[0])
        )

    def gate(self, channels: int, squeezed: int) -> ops.Gate:
        """The two products of squeeze-excitation."""
        biased = self.bias if self.gate_bias is None else self.gate_bias
        return ops.Gate(
            self.weight(squeezed, channels),
            self.biases(squeezed) if biased else None,
            self.weight(channels, squeezed),
            self.biases(channels) if biased else None,
        )
