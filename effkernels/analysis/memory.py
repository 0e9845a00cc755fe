"""How much memory a network needs, estimated from the sizes of its feature maps.

Counted at their exact size: parameters, buffers, feature maps and, in training, gradients and
optimizer state. Not counted: tensors of one value per channel, workspaces of libraries, and what an
allocator rounds up or keeps. So compare the figures with ``torch.cuda.max_memory_allocated``, not
with ``nvidia-smi``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import torch

from effkernels.analysis.cost import (
    LINEAR,
    ByExecution,
    LayerCost,
    ModelCost,
    check_dtype,
    elements,
)
from effkernels.models.scaling import check_count

_INDEX_BYTES = 8  # of each result of a max-pool, where it comes from: int64


def inference_memory(cost: ModelCost) -> ByExecution:
    """Peak bytes of a forward pass without autograd: parameters, buffers and the largest live maps.

    Live at a layer are the image, the inputs of the current stage and block (their callers hold
    them), the layer's own input and its output. ``eager`` writes a convolution's output and then
    BatchNorm's, and both are live at once. ``level1`` writes one map per layer; ``level2`` writes
    none for expand; neither writes the head's.
    """
    map_bytes = cost.batch_size * cost.dtype.itemsize
    live = list(_live_elements(cost.layers, _INDEX_BYTES // cost.dtype.itemsize))
    return ByExecution(
        eager=cost.state_bytes + map_bytes * max(at.eager for at in live),
        level1=cost.state_bytes + map_bytes * max(at.level1 for at in live),
        level2=cost.state_bytes + map_bytes * max(at.level2 for at in live),
    )


def training_memory(
    cost: ModelCost, *, parameter_dtype: torch.dtype | str | None = None, optimizer_states: int = 2
) -> int:
    """Bytes of a training step with PyTorch's own layers and autograd: an upper estimate.

    The sum of: parameters and buffers; a gradient and ``optimizer_states`` values for each
    parameter; the image and every map that autograd saves (:func:`saved_bytes`); and the gradients
    of the largest layer's input and output maps. Autocast adds cast copies of the parameters.

    Args:
        cost: for the whole batch. Its dtype is that of the activations.
        parameter_dtype: of parameters, buffers, gradients and optimizer state; None for that of the
            activations. ``torch.float32`` with a 16-bit ``cost.dtype`` is training under autocast.
        optimizer_states: values kept for each parameter. 2 for RMSProp with momentum (the paper's)
            and for Adam, 1 for SGD with momentum; an averaged copy of the weights adds 1.

    Raises:
        TypeError: ``parameter_dtype`` is not a floating-point dtype, or ``optimizer_states`` not an
            int.
        ValueError: ``optimizer_states`` is below 0.
    """
    check_count("optimizer_states", optimizer_states, minimum=0)
    kept = check_dtype("parameter_dtype", parameter_dtype or cost.dtype)
    cast_copies = 0 if kept == cost.dtype else cost.params * cost.dtype.itemsize
    largest = max(elements(layer.out_shape) for layer in cost.layers)
    return (
        cost.state_bytes_in(kept)
        + (1 + optimizer_states) * cost.params * kept.itemsize
        + cast_copies
        + saved_bytes(cost)
        + 2 * largest * cost.batch_size * cost.dtype.itemsize
    )


def saved_bytes(cost: ModelCost) -> int:
    """Bytes of the feature maps that autograd keeps for the backward pass, including the image.

    Each convolution keeps its input (a bottleneck's shortcut shares that of ``reduce``), its output (BatchNorm's
    input) and, where an activation follows, that one's input; the gate's product keeps its input, and a max-pool
    its input and its indices.
    """
    maps = indices = 0
    for layer in cost.layers:
        written = elements(layer.out_shape)
        if layer.kind == "squeeze_excite":
            # Where it has a residual, an activation follows the sum.
            maps += written * (1 + layer.residual)
        elif layer.kind == "pool":
            maps += elements(layer.in_shape)
            indices += written
        elif layer.kind != "classifier":
            summed = layer.kind == "restore" and layer.residual
            maps += written * (1 + (layer.kind not in LINEAR or summed))
            maps += 0 if layer.kind == "shortcut" else elements(layer.in_shape)
    return cost.batch_size * (maps * cost.dtype.itemsize + indices * _INDEX_BYTES)


def _live_elements(layers: tuple[LayerCost, ...], index: int) -> Iterator[ByExecution]:
    """Elements of all live maps at each convolution, for one image; an index of a max-pool counts as ``index``."""
    stem, *others = layers
    picture, stem_map = elements(stem.in_shape), elements(stem.out_shape)
    yield ByExecution(picture + 2 * stem_map, picture + stem_map, picture + stem_map)
    body = [layer for layer in others if layer.name.startswith("stages.")]
    for _, stage in groupby(body, key=lambda layer: layer.name.split(".")[1]):
        blocks = [
            tuple(block)
            for _, block in groupby(stage, key=lambda layer: layer.name.rpartition(".")[0])
        ]
        stage_input = elements(blocks[0][0].in_shape)
        for place, block in enumerate(blocks):
            held = picture + stage_input + (elements(block[0].in_shape) if place else 0)
            yield from _live_in_block(block, held)
    for layer in others:
        held = picture + elements(layer.in_shape)
        if layer.kind == "head":
            yield ByExecution(held + 2 * elements(layer.out_shape), held, held)
        elif layer.kind == "pool":
            held += elements(layer.out_shape) * (1 + index)
            yield ByExecution(held, held, held)


def _live_in_block(block: tuple[LayerCost, ...], held: int) -> Iterator[ByExecution]:
    """``held``: what lives as long as the block, its input included."""
    own = 0  # what the layer before wrote
    for layer in block:
        written = elements(layer.out_shape)
        if layer.kind == "squeeze_excite":
            least = held + own + written * layer.residual
            yield ByExecution(held + own + written, least, least)
            continue
        fused = held + own + written
        if layer.kind == "expand":
            yield ByExecution(fused + written, fused, held)
        elif layer.kind == "depthwise":
            yield ByExecution(fused + written, fused, held + written)
        else:
            yield ByExecution(fused + written, fused, fused)
        if layer.kind == "shortcut":
            held += written
        else:
            own = written
