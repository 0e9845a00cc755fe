"""Which kernel runs for each layer of a model, on which tensors, and why that one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from effkernels import dispatch
from effkernels.explaining.arguments import check_arguments, model_name
from effkernels.explaining.recorder import Recorder, Row
from effkernels.explaining.text import aligned, count_text, dtype_name, shape_text
from effkernels.nn._plain import has_hooks

_TEXT_COLUMNS = 6  # columns of text; numbers follow, then the key of the reason


@dataclass(frozen=True)
class Explanation:
    """One forward pass, layer by layer; ``print`` shows it as a table. See :func:`explain`.

    Attributes:
        model: the model's name, or the name of its class.
        input_shape, dtype, device: of the input.
        rows: in the order in which they ran.
        notes: about the whole model: training mode, hooks, why its layers run one by one.
        launches: kernels as they were launched on a GPU, in order: those of networks and blocks on the cuda backend.
    """

    model: str
    input_shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    rows: tuple[Row, ...] = field(repr=False)
    notes: tuple[str, ...]
    launches: tuple[dispatch.Launch, ...] = ()

    @property
    def calls(self) -> int:
        """Number of op calls. An op that computes a whole network is one call."""
        return len({row.call for row in self.rows} - {None})

    @property
    def bytes(self) -> int:
        """The sum over all rows: the memory traffic if no row finds its input in a cache."""
        return sum(row.bytes for row in self.rows)

    @property
    def flops(self) -> int:
        """The sum over all rows."""
        return sum(row.flops for row in self.rows)

    def __str__(self) -> str:
        reasons = list(dict.fromkeys(row.why for row in self.rows))
        keys = {why: f"[{number}]" for number, why in enumerate(reasons, start=1)}
        head = ["layer", "op", "backend", "input", "output", "dtype", "MB", "GFLOPs", "why"]
        table = [head, *([*_cells(row), keys[row.why]] for row in self.rows)]
        table.append(["total", *[""] * 5, *_amounts(self.bytes, self.flops), ""])
        plain = sum(row.call is None for row in self.rows)
        images = f"{shape_text(self.input_shape)} {dtype_name(self.dtype)} on {self.device}"
        lines = [
            f"{self.model}, {images}: {count_text(self.calls, 'op call')}, "
            f"{count_text(plain, 'row')} of PyTorch's own operators",
            *self.notes,
            "",
            *aligned(table, _TEXT_COLUMNS),
            "",
            *(f"{key} {why}" for why, key in keys.items()),
            *_launched(self.launches),
        ]
        return "\n".join(lines)


def _amounts(moved: int, flops: int) -> tuple[str, str]:
    return f"{moved / 1e6:.3f}", f"{flops / 1e9:.3f}"


def _cells(row: Row) -> list[str]:
    shapes = shape_text(row.in_shape), shape_text(row.out_shape)
    return [
        row.name or "-",
        row.op,
        row.backend,
        *shapes,
        dtype_name(row.dtype),
        *_amounts(row.bytes, row.flops),
    ]


def _launched(launches: Sequence[dispatch.Launch]) -> Iterator[str]:
    """A table of kernels, neighbours that are launched alike in one line."""
    if not launches:
        return
    dependent = sum(launch.dependent for launch in launches)
    yield ""
    yield (
        f"{count_text(len(launches), 'kernel')} launched, "
        f"{dependent} of them before the one before had to end"
    )
    yield ""
    table = [["kernel", "times", "blocks", "threads", "shared KB", "cluster", "overlaps", "part"]]
    for (kernel, *how), same in itertools.groupby(map(_launch_cells, launches)):
        table.append([kernel, str(len(list(same))), *how])
    yield from aligned(table, text_columns=1)


def _launch_cells(launch: dispatch.Launch) -> list[str]:
    sizes = launch.blocks, launch.threads, f"{launch.shared_bytes / 1024:.1f}", launch.cluster
    overlaps = "yes" if launch.dependent else "no"
    part = "" if launch.parts == 1 else f"{launch.part} of {launch.parts}"
    return [launch.kernel, *map(str, sizes), overlaps, part]


def explain(model: nn.Module, input: Tensor) -> Explanation:
    """Run ``model`` once and report which kernel ran for each layer, on what, at what cost, and why that
    one.

    The model runs under ``torch.no_grad()``, in its own mode, with the ``use_backend`` and
    ``torch.autocast`` of this thread. In training mode, buffers and random number generators are restored
    afterwards. What runs in plain PyTorch (modules in training mode, with hooks, or not from effkernels) is
    listed too.

    Args:
        model: an EfficientNet, or any module that calls effkernels' layers or ops; not a compiled one.
        input: (N, C, H, W), floating point or uint8, on the model's device.

    Returns:
        One row per layer, with shapes, dtype, bytes and FLOPs. Bytes are the minimum for the row's tensors
        (each read or written once); for plain PyTorch, the sum over its operators.

    Raises:
        TypeError: ``model`` is not a module, or ``input`` not a floating-point or uint8 tensor.
        ValueError: ``input`` has another shape, or is on another device than the model; ``model`` is
            compiled.
        Exception: whatever the model raises.
    """
    check_arguments("explain", model, input)
    recorder = Recorder(model)
    dispatch.record_launches(True)
    training = any(module.training for module in model.modules())
    try:
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            _put_back(model, input.device, training),
            dispatch.watching(recorder),
            recorder,
        ):
            model(input)
    finally:
        launches = dispatch.record_launches(False)
    recorder.finish()
    return Explanation(
        model=model_name(model),
        input_shape=tuple(input.shape),
        dtype=input.dtype,
        device=input.device,
        rows=tuple(recorder.rows),
        notes=(*recorder.notes, *_notes(model)),
        launches=tuple(launches),
    )


def _notes(model: nn.Module) -> Iterator[str]:
    hooked = [name or "the model" for name, module in model.named_modules() if has_hooks(module)]
    if hooked:
        yield f"hooks on {', '.join(hooked)}"


@contextmanager
def _put_back(model: nn.Module, device: torch.device, training: bool) -> Iterator[None]:
    """Restore running statistics and random number generators, which a pass in training mode changes."""
    if not training:
        yield
        return
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            for buffer, values in before:
                buffer.copy_(values)
