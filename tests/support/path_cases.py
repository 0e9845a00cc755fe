"""Cases that take each path of a GPU backend's kernels: shared tiles cut, channels left over, nothing there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from op_cases import Expand, Squeeze, Style, Window


def styled(case: Any, dtype: torch.dtype, seed: int) -> Any:
    return replace(case, style=replace(case.style, dtype=dtype, seed=seed))


def few_terms(case: Window) -> Window:
    taps = case.kernel[0] * case.kernel[1]
    return replace(case, channels=min(case.channels, 256 // taps))


PAD1, PAD2, PAD3 = (1,) * 4, (2,) * 4, (3,) * 4
DEPTHWISE = {
    # Several tiles down and across, the last ones cut; several chunks of channels.
    "3x3": Window(2, 136, (19, 37), (3, 3), padding=PAD1),
    "3x3/2": Window(2, 136, (35, 18), (3, 3), stride=(2, 2), padding=(0, 1, 0, 1)),
    "5x5": Window(1, 136, (18, 36), (5, 5), padding=PAD2),
    "5x5/2": Window(1, 136, (29, 37), (5, 5), stride=(2, 2), padding=(1, 2, 1, 2)),
    "7x7": Window(1, 72, (17, 19), (7, 7), padding=PAD3),
    "7x7/2": Window(1, 72, (19, 37), (7, 7), stride=(2, 2), padding=PAD3),
    # Whole vectors of halves and of floats, of floats alone, and neither; one pair, one channel.
    "12 channels": Window(2, 12, (9, 9), (3, 3), padding=PAD1),
    "67 channels": Window(2, 67, (9, 9), (5, 5), padding=PAD2),
    "2 channels": Window(2, 2, (9, 9), (5, 5), padding=PAD2),
    "1 channel": Window(2, 1, (9, 9), (3, 3), stride=(2, 2), padding=PAD1),
    "not aligned": Window(2, 64, (9, 9), (3, 3), padding=PAD1, style=Style(layout="offset")),
    "tall": Window(1, 8, (300, 1), (5, 5), stride=(2, 2), padding=PAD2),
    "wide": Window(1, 8, (1, 300), (3, 3), padding=PAD1),
    "one pixel": Window(3, 40, (1, 1), (5, 5), padding=PAD2),
    "only padding": Window(2, 5, (1, 1), (3, 3), padding=(6, 7, 9, 5)),
    # The general kernel.
    "dilated": Window(2, 40, (30, 30), (3, 3), padding=(9,) * 4, dilation=(9, 7)),
    "stride 2 by 1": Window(1, 72, (14, 9), (3, 3), stride=(2, 1), padding=PAD1),
    "stride 3": Window(1, 72, (14, 9), (5, 5), stride=(3, 3), padding=PAD2),
    "9x9": Window(1, 130, (11, 12), (9, 9), padding=(4,) * 4),
    "64x1": Window(1, 9, (80, 5), (64, 1), padding=(0, 5, 0, 0)),
    "2x4": Window(1, 3, (20, 30), (2, 4), padding=(1, 0, 3, 0)),
    "empty batch": Window(0, 40, (8, 8), (3, 3), padding=PAD1),
}

SQUEEZES = {
    "gate": Squeeze(3, 700, 45, None),
    "gates that share weights": Squeeze(266, 32, 9, None),
    "gates in several blocks": Squeeze(2, 600, 13, None),
    "gates of vectors": Squeeze(3, 1400, 24, None),
    "no hidden channels": Squeeze(2, 9, 0, None),
    "no gates": Squeeze(0, 33, 8, None),
    "bands": Squeeze(1, 20, 5, (30, 20)),
    "chunks": Squeeze(2, 200, 11, (5, 7)),
    "67 channels": Squeeze(2, 67, 3, (9, 9)),
    "not aligned": Squeeze(2, 64, 3, (9, 9), style=Style(layout="offset")),
    "no images": Squeeze(0, 33, 8, (3, 3)),
}

# What is read byte by byte, and what is subtracted: planes, pixels, neither; beside padding on all sides.
_STEM = Window(2, 3, (13, 20), (3, 3), 32, stride=(2, 2), padding=PAD1)
IMAGES = {
    f"{'uint8' if uint8 else 'float'} {layout}{' normalised' if normalise else ''}": replace(
        _STEM, uint8=uint8, normalise=normalise, style=Style(layout=layout)
    )
    for layout, uint8, normalise in (
        ("nchw", True, True),
        ("nhwc", True, True),
        ("sliced", True, True),
        ("nhwc", True, False),
        ("nhwc", False, True),
    )
}

CONVOLUTIONS = {
    "stem": Window(2, 3, (33, 40), (3, 3), 32, stride=(2, 2), padding=(0, 1, 0, 1)),
    "stem of B7": Window(1, 3, (17, 19), (3, 3), 64, stride=(2, 2), padding=PAD1),
    "chunks": Window(1, 4, (9, 30), (3, 3), 200, padding=PAD1),
    "256 terms": Window(1, 64, (6, 7), (2, 2), 70, padding=PAD1),
    "dilated": Window(1, 6, (20, 21), (3, 2), 70, padding=(4, 0, 1, 3), dilation=(2, 3)),
    "only padding": Window(1, 3, (1, 1), (3, 3), 20, stride=(3, 3), padding=(5, 6, 7, 8)),
    "channels_last": Window(
        1, 9, (8, 9), (3, 3), 37, padding=PAD1, style=Style(weights="channels_last")
    ),
    "strided": Window(1, 9, (8, 9), (3, 3), 37, padding=PAD1, style=Style(weights="strided")),
    "empty batch": Window(0, 3, (8, 8), (3, 3), 5),
    **IMAGES,
}

# 16-bit: for float32 there is no such kernel.
EXPANDS = {
    # Several tiles, the last ones cut, and several chunks, the last with channels left over.
    "3x3": Expand(1, 16, 40, (33, 70)),
    "3x3/2": Expand(1, 24, 50, (61, 40), stride=2, padding=(0, 1, 0, 1)),
    "5x5": Expand(2, 40, 60, (19, 18), 5, padding=PAD2),
    "5x5/2": Expand(1, 24, 50, (31, 70), 5, stride=2, padding=(1, 2, 1, 2)),
    "80 channels": Expand(1, 80, 49, (20, 30)),
    "112 channels": Expand(1, 112, 40, (14, 14), 5, stride=2, padding=(1, 2, 1, 2)),
    "128 channels": Expand(1, 128, 33, (9, 8)),
    # More tiles than chunks, and fewer.
    "several images": Expand(5, 24, 136, (3, 2), stride=2),
    "one image": Expand(1, 24, 264, (5, 3)),
    "13 channels": Expand(2, 13, 20, (7, 9), stride=2),
    "8 channels": Expand(2, 8, 16, (5, 6), 5, padding=(0, 3, 1, 2)),
    "1 expanded": Expand(2, 8, 1, (5, 6)),
    "not aligned": Expand(1, 24, 40, (9, 9), style=Style(layout="offset")),
    "tall": Expand(1, 8, 12, (300, 1), 5, stride=2, padding=PAD2),
    "wide": Expand(1, 8, 12, (1, 300)),
    "one pixel": Expand(3, 16, 24, (1, 1), 5, padding=PAD2),
    "mostly padding": Expand(2, 8, 9, (1, 2), padding=(40, 7, 9, 35)),
    "biases alone": Expand(
        1, 8, 24, (6, 6), activation="hardswish", style=Style(norm="none", bias=True)
    ),
    "strange": Expand(2, 16, 24, (9, 9), style=Style(strange=3)),
    "empty batch": Expand(0, 16, 24, (8, 8)),
}
