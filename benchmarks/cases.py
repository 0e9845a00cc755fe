"""What is measured: whole networks, and the layers of :mod:`benchmarks.layer_cases`."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.layer_cases import LayerCases, short_name
from benchmarks.work import CPU, Device, Work
from effkernels.analysis import cost
from effkernels.models import get_config


@dataclass(frozen=True)
class NetworkCase:
    """A whole network on ``batch`` images of ``resolution`` x ``resolution`` pixels."""

    model: str
    resolution: int
    batch: int = 1
    device: Device = CPU

    @property
    def key(self) -> str:
        """Unique among all cases, and fit for a file name."""
        return f"{self.model}-{self.resolution}px-batch{self.batch}{self.device.suffix}"

    @property
    def title(self) -> str:
        """For people."""
        named = self.device.kind == "cpu" and self.device != CPU
        type_ = f", {self.device.title}" if named else ""
        return f"{short_name(self.model)}@{self.resolution}, batch {self.batch}{type_}"

    @property
    def work(self) -> Work:
        """Feature maps of level 2 (expand and depthwise as one kernel) and the weights, once each."""
        total = cost.model_cost(
            self.model, self.resolution, batch_size=self.batch, dtype=self.device.dtype
        )
        return Work(total.bytes_moved.level2 + total.state_bytes, total.macs)


Case = NetworkCase | LayerCases


def network(
    model: str, *, batch: int = 1, resolution: int | None = None, device: Device = CPU
) -> NetworkCase:
    """A network at its own resolution, or at another."""
    return NetworkCase(model, resolution or get_config(model).resolution, batch, device)
