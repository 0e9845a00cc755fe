"""The processes of one training: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Processes:
    """This process among all: its number, how many there are, and how many of them share this machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and reports."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def share(self, values: Iterable[Tensor]) -> None:
        """Replace each of ``values``, in place, by the first process's."""
        if self.world > 1:
            for value in values:
                distributed.broadcast(value, 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            distributed.barrier()


def from_environment() -> Processes:
    """What torchrun says in environment variables; one process without it."""
    get = os.environ.get
    return Processes(
        rank=int(get("RANK", "0")),
        world=int(get("WORLD_SIZE", "1")),
        local_rank=int(get("LOCAL_RANK", "0")),
        local_world=int(get("LOCAL_WORLD_SIZE", "1")),
    )


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """Join the other processes: by NCCL where ``device`` is a GPU, else by gloo. Yields this process's own device."""
    found = from_environment()
    if found.world == 1:
        yield found, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", found.local_rank)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield found, device
    finally:
        distributed.destroy_process_group()
