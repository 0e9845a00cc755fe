"""The host shim itself: it must find what is wrong with kernels, and nothing with those that are right."""

from __future__ import annotations

import re

import pytest
import torch

from host_shim import HostShim, ShimError


def test_a_kernel_without_mistakes(shim: HostShim) -> None:
    for seed in range(3):
        out = shim.call("planted", "right", seed)
        assert torch.equal(out, (torch.arange(64) + 1).remainder(64).float())


def test_products_of_matrices(shim: HostShim) -> None:
    rows = ((torch.arange(128) * 37 % 17 - 8) / 8.0).view(8, 16)
    out = shim.call("planted", "products", 0)
    assert torch.equal(out.view(8, 8), rows @ rows.T)


def test_products_of_half_as_many_terms(shim: HostShim) -> None:
    rows = ((torch.arange(128) * 37 % 17 - 8) / 8.0).view(8, 16)
    out = shim.call("planted", "short products", 0)
    assert torch.equal(out.view(8, 8), rows @ rows.T)


def test_boxes_are_clipped_and_filled_with_zeros(shim: HostShim) -> None:
    box = torch.zeros(8, 8)
    box[1:, :6] = torch.arange(64.0).view(8, 8)[:7, 2:]
    expected = torch.full((8, 8), -1.0)
    expected[3:, 1:] = box[:5, :7] + 1
    for seed in range(3):
        assert torch.equal(shim.call("planted", "boxes", seed).view(8, 8), expected)
    # The swizzle permutes the first four rows of this box.
    other = shim.call("planted", "swizzle forgotten", 0).view(8, 8)
    assert torch.equal(other[7], expected[7])
    assert not torch.equal(other[4:7], expected[4:7])


def test_matrices_go_from_registers_to_memory(shim: HostShim) -> None:
    out = shim.call("planted", "stored matrices", 0)
    assert torch.equal(out.view(torch.float16).float(), torch.arange(128) / 8)


def test_boxes_that_are_not_waited_for_are_nan(shim: HostShim) -> None:
    """In the second warp, which has the last four rows of the box."""
    out = shim.call("planted", "box not waited for by one warp", 0).view(8, 8)
    assert not out[:7].isnan().any()
    assert out[7, 1:].isnan().all()


def test_blocks_of_a_cluster_write_to_each_other(shim: HostShim) -> None:
    expected = (2.0 * torch.arange(32) + 32).repeat(2)
    for seed in range(3):
        assert torch.equal(shim.call("planted", "cluster", seed), expected)


def test_without_a_barrier_some_of_what_a_cluster_sends_is_missing(shim: HostShim) -> None:
    missing = [shim.call("planted", "cluster unfinished", seed).isnan().any() for seed in range(3)]
    assert any(missing)


def test_a_dependent_launch_sees_what_it_waits_for(shim: HostShim) -> None:
    for seed in range(3):
        assert torch.equal(shim.call("planted", "dependent", seed), 2.0 * torch.arange(64))


@pytest.mark.parametrize("name", ["warpgroup", "warpgroup with registers"])
def test_products_of_warpgroups(shim: HostShim, name: str) -> None:
    k = torch.arange(64) * 11
    a, b = (
        ((torch.arange(rows)[:, None] * factor + k) % 17 - 8) / 8.0
        for rows, factor in ((64, 37), (32, 5))
    )
    assert torch.equal(shim.call("planted", name, 0), (a * b.repeat(2, 1)).sum(1))


# What the shim says, or what a sanitizer does.
FOUND = {
    "missed barrier": "a barrier was missed: 63 of 64 threads wait",
    "two barriers": "a barrier was missed: 64 of 64 threads wait, at different ones",
    "missed exchange": "a warp's exchange was missed: 31 of 32 threads wait",
    "copy not waited for": "copies were started and not waited for",
    "beyond shared memory": "AddressSanitizer: heap-buffer-overflow",
    "beyond global memory": "AddressSanitizer: heap-buffer-overflow",
    "missed product": "a warp's exchange was missed: 31 of 32 threads wait",
    "misaligned row": "misaligned address .* which requires 16 byte alignment",
    "box not waited for": "loads of boxes were started and not waited for",
    "fewer bytes expected": "deadlock: 64 of 64 threads wait, thread 0 for an mbarrier with parity 0 at "
    r"tests/backends/cuda/shim/planted_tensor_memory.cu:\d+",
    "nobody arrives": "deadlock: 64 of 64 threads wait, thread 0 for an mbarrier with parity 0 at ",
    "too many arrive": "more threads arrive than an mbarrier was made for: thread 0 at ",
    "mbarrier not fenced": "a copy uses an mbarrier before mbarrier_init_fence: thread 0 at ",
    "mbarrier not made": "no mbarrier was made there: thread 0 at ",
    "misaligned box": "the box is not aligned to 128 bytes of shared memory: thread 0 at ",
    "overwritten before it is stored": "was written before a store had read it: thread 0 at ",
    "store not waited for": "a store was started and not waited for: thread 0 at ",
    "stored and not fenced": r"a store reads what thread \d+ has not fenced: thread 0 at ",
    "cluster written too early": r"a block is written to that may not have started: thread \d+ of block 0 at ",
    "cluster not arrived": r"a barrier of a cluster is not arrived at: thread \d+ of block \d at ",
    "cluster arrived twice": r"a barrier of a cluster is arrived at twice: thread \d+ of block \d at ",
    "cluster missed": r"deadlock: 63 of 64 threads wait, thread \d+ for a barrier of a cluster: ",
    "cluster not waited for": "a barrier of a cluster was arrived at and not waited for",
    "cluster ended": "block 1 is written to and has ended: thread .* of block 0 at ",
    "cluster without such a block": "there is no block 2 in the cluster: ",
    "cluster beyond memory": "AddressSanitizer: heap-buffer-overflow",
    "misaligned": "misaligned address .* which requires 16 byte alignment",
    "products not fenced": r"products were started without warpgroup_fence: thread \d+ at ",
    "products not waited for": "products were started and not waited for",
    "products not ended": "products were started and not waited for",
    "operand overwritten": r"was written before products had read it: thread \d+ at ",
    "warp without a product": "a warpgroup's product was missed: thread 32 has started 3",
    "misaligned operand": r"an operand of products is not aligned to 1024 bytes: thread \d+ at ",
    "operand without swizzle": r"without the swizzle of 128 bytes: thread \d+ at ",
    "dependent reads too early": "AddressSanitizer: use-after-poison",
    "dependent writes too early": "AddressSanitizer: use-after-poison",
    "dependent copies too early": "a copy of what the launch before writes is started without waiting",
    "dependent box too early": "a copy of what the launch before writes is started without waiting",
    "dependent never waits": "a block ends without waiting for the launch before",
    "dependent keeps the next": "a block does not let the next launch begin",
    "dependent beside its memory": "AddressSanitizer: use-after-poison",
    "missed named barrier": r"deadlock: 96 of 128 threads wait, thread \d+ for named barrier 3 at ",
}


@pytest.mark.parametrize("name", FOUND)
def test_mistakes_are_found(shim: HostShim, name: str) -> None:
    with pytest.raises(ShimError, match=FOUND[name]):
        shim.call("mistake", name, 0)


def test_unwritten_shared_memory_is_nan(shim: HostShim) -> None:
    assert shim.call("planted", "unwritten", 0).isnan().nonzero().tolist() == [[5]]


def test_copies_land_when_their_group_is_waited_for(shim: HostShim) -> None:
    out = shim.call("planted", "groups of copies", 0)
    assert out[16:32].isnan().all()
    landed = torch.cat([out[:16], out[32:]])
    assert torch.equal(landed, torch.full_like(landed, -1.0))


def test_races_depend_on_the_order(shim: HostShim) -> None:
    outcomes = {tuple(shim.call("planted", "race", seed).tolist()) for seed in range(3)}
    assert len(outcomes) > 1


def test_the_shim_goes_on_after_a_crash(shim: HostShim) -> None:
    with pytest.raises(ShimError, match=re.escape("planted.cu")):
        shim.call("planted", "beyond global memory", 0)
    assert shim.call("planted", "right", 0)[0] == 1


def test_conversions_are_pytorchs(shim: HostShim) -> None:
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    values = [halves.view(d).float() for d in (torch.float16, torch.bfloat16)]
    spread = torch.arange(-(2**31), 2**31, 40_009).to(torch.int32).view(torch.float32)
    middles = (values[0][:-1] + values[0][1:]) / 2
    x = torch.cat([*values, spread, middles])
    for ours in shim.call("convert", x):
        theirs = x.to(ours.dtype)
        wrong = (ours.view(torch.int16) != theirs.view(torch.int16)) & ~(
            ours.isnan() & theirs.isnan()
        )
        assert not wrong.any(), (x[wrong][:5], ours[wrong][:5], theirs[wrong][:5])
