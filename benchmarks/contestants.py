"""Who is measured: one row of data each. How each is built stands in ``networks``, ``runtimes`` and ``layers``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """A way to compute a case. Contestants of one ``family`` are one rival: its fastest member counts.

    ``build`` names, as ``module:function``, what turns a case and the folder of problems into a
    :class:`Built`, in a process that belongs to this contestant alone. ``options`` are passed to it.
    ``result``: which of the problem's results it computes. ``full``: only measured with ``--full``.
    """

    name: str
    family: str
    build: str
    options: tuple[tuple[str, Any], ...] = ()
    result: str = "result"
    full: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is this library."""
        return self.family == "effkernels"


@dataclass
class Built:
    """``run`` computes the case once; its result is a tensor or an array. ``details`` say how, for the report.

    On a GPU ``run`` may return before its work is done.
    """

    run: Callable[[], Any]
    details: dict[str, Any]


class Missing(Exception):  # noqa: N818 - no error: said of a contestant that is not here
    """The contestant cannot run on this machine; the message says why."""


Builder = Callable[..., Built]
"""Called with (case: Case, folder: Path, **options)."""

_NETWORKS = "benchmarks.networks"
_RUNTIMES = "benchmarks.runtimes"
_LAYERS = "benchmarks.layers"


def _compiled(
    name: str,
    *,
    freezing: bool = False,
    channels_last: bool = True,
    mode: str | None = None,
    full: bool = False,
) -> Contestant:
    options = (("freezing", freezing), ("channels_last", channels_last), ("mode", mode))
    return Contestant(name, "torch.compile", f"{_NETWORKS}:compiled", options, full=full)


OURS = Contestant("effkernels", "effkernels", f"{_NETWORKS}:ours")
EAGER = Contestant("eager-channels_last", "eager", f"{_NETWORKS}:eager", (("channels_last", True),))
EAGER_NCHW = Contestant("eager-NCHW", "eager", f"{_NETWORKS}:eager", (("channels_last", False),))
ONNXRUNTIME = Contestant("onnxruntime", "onnxruntime", f"{_RUNTIMES}:onnxruntime")
# Where two packages have the model, eager PyTorch runs torchvision's modules; these are the other's.
_TIMM = (("channels_last", True), ("package", "timm"))
TIMM = Contestant("timm-channels_last", "eager", f"{_NETWORKS}:eager", _TIMM, full=True)

NETWORKS = (
    OURS,
    Contestant("effkernels-fused", "effkernels", f"{_NETWORKS}:ours", (("fuse", True),)),
    ONNXRUNTIME,
    Contestant("openvino", "openvino", f"{_RUNTIMES}:openvino"),
    EAGER,
    EAGER_NCHW,
    TIMM,
    _compiled("compile-freezing-channels_last", freezing=True),
    _compiled("compile-freezing-NCHW", freezing=True, channels_last=False, full=True),
    _compiled("compile-channels_last", full=True),
    _compiled("compile-NCHW", channels_last=False, full=True),
)

LOW_PRECISION = tuple(c for c in NETWORKS if c.family != "torch.compile" and not c.full)
"""Compared in 16 bits: nothing that compiles for a minute."""

_GRAPH = (("graph", True),)


def _depthwise_kernels() -> Iterator[Contestant]:
    """Eager PyTorch in both layouts with each of the depthwise kernels that it otherwise chooses from."""
    for layout in ("channels_last", "NCHW"):
        for kernels in ("cudnn", "native"):
            options = (("channels_last", layout == "channels_last"), ("depthwise", kernels))
            name = f"eager-{layout}-{kernels}"
            yield Contestant(name, "eager", f"{_NETWORKS}:eager", options, full=True)


GPU_NETWORKS = (
    OURS,
    Contestant("effkernels-graph", "effkernels", f"{_NETWORKS}:ours", _GRAPH),
    Contestant(
        "effkernels-fused-graph", "effkernels", f"{_NETWORKS}:ours", (("fuse", True), *_GRAPH)
    ),
    EAGER,
    EAGER_NCHW,
    TIMM,
    *_depthwise_kernels(),
    Contestant(
        "eager-channels_last-graph",
        "eager, CUDA graph",
        f"{_NETWORKS}:eager",
        (("channels_last", True), *_GRAPH),
    ),
    _compiled("compile-channels_last"),
    _compiled("compile-reduce-overhead", mode="reduce-overhead"),
    _compiled("compile-NCHW", channels_last=False, full=True),
    _compiled("compile-max-autotune", mode="max-autotune", full=True),
    Contestant("tensorrt", "tensorrt", f"{_RUNTIMES}:tensorrt"),
)

LAYERS = (
    Contestant("effkernels", "effkernels", f"{_LAYERS}:ours"),
    Contestant("eager-channels_last", "eager", f"{_LAYERS}:in_calls", (("channels_last", True),)),
    Contestant("eager-NCHW", "eager", f"{_LAYERS}:in_calls", (("channels_last", False),)),
)

GPU_LAYERS = (
    *LAYERS,
    Contestant(
        "eager-native",
        "eager",
        f"{_LAYERS}:in_calls",
        (("channels_last", False), ("cudnn", False)),
    ),
)

POINTWISE = (
    *LAYERS[:2],
    Contestant("torch.mm", "torch.mm", f"{_LAYERS}:product", result="product"),
)

GROWTH = (OURS, ONNXRUNTIME)
"""Compared as batch and resolution grow."""

GPU_GROWTH = (OURS, EAGER)
"""The same on GPUs."""

MEMORY = (OURS, EAGER)
"""Compared by peak memory."""

_STARTUP = "benchmarks.startup:measure"
STARTUP = (
    Contestant("effkernels", "effkernels", _STARTUP),
    Contestant("torchvision", "eager", _STARTUP),
    Contestant("onnxruntime", "onnxruntime", _STARTUP),
    Contestant("torch.compile", "torch.compile", _STARTUP, full=True),
)
"""Compared by how soon the first logits are there. The last compiles for a minute."""

GPU_STARTUP = tuple(contestant for contestant in STARTUP if contestant.name != "onnxruntime")
