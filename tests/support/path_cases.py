"""Cases that take each path of a GPU backend's kernels: shared tiles cut, channels left over, nothing there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from op_cases import Squeeze, Style, Window


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
    "gates that share weights": Squeeze(66, 70, 9, None),
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
