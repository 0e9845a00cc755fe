"""Makes Triton's kernels split small maps as they split large ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from effkernels._backends.triton import depthwise_conv_bn_act, launch, squeeze_excite_gate


@contextmanager
def several_parts() -> Iterator[None]:
    """Within the block programs do several parts of large tiles, and several programs share the gates of one image."""
    kept = depthwise_conv_bn_act.choose
    with (
        patch.object(launch, "BUSY", 3),
        patch.object(depthwise_conv_bn_act, "_AT_ONCE", 1),
        patch.object(squeeze_excite_gate, "_REPEATED", 1),
    ):
        kept.cache_clear()
        try:
            yield
        finally:
            kept.cache_clear()
