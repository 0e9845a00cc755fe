"""Gates on devices that have no clusters, and what partial sums may hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from cuda_kernels import Shim
from host_shim import HostShim
from parity import check
from specs import squeeze_excite, squeeze_excite_gate

HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture
def older(shim: HostShim) -> Iterator[Shim]:
    """A device of compute capability 8."""
    shim.call("tensor_memory", False)
    yield Shim(shim)
    shim.call("tensor_memory", True)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", ["nine gates of 240", "680 channels", "1544 channels"])
def test_without_clusters(older: Shim, name: str, dtype: torch.dtype, seed: int) -> None:
    edges = {**squeeze_excite.EDGES, **squeeze_excite_gate.EDGES}
    check(older, edges[name].styled(dtype=dtype, seed=seed))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_both_forms_agree(shim: HostShim, older: Shim, dtype: torch.dtype, seed: int) -> None:
    """To float32's rounding: the cluster adds the same terms in another order."""
    case = squeeze_excite_gate.EDGES["nine gates of 240"].styled(dtype=dtype, seed=seed)
    arguments = case.arguments()
    (alone,) = older("squeeze_excite_gate", arguments)
    shim.call("tensor_memory", True)
    (together,) = Shim(shim)("squeeze_excite_gate", arguments)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
