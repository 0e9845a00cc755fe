"""A training step of a whole network: forward in training mode, backward, and the optimiser's update."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import effkernels
from benchmarks.cases import Scope, Suite
from benchmarks.cases.networks import B0, NetworkCase, module_by_module, network
from benchmarks.harness.alternate import Timing
from benchmarks.harness.device import CPU
from benchmarks.harness.problem import KEPT_IMAGES, SEED, Answer, Tensors, kept_images
from effkernels.nn import DropPath
from specs.work import Work

_BATCH = 16
_TIMING = Timing(turn=0.5, budget=30.0, min_rounds=9)


@dataclass(frozen=True)
class TrainingCase(NetworkCase):
    """A network that trains on ``batch`` images.

    Without dropout and with a learning rate of 0, so that each step is the same.
    """

    @property
    def key(self) -> str:
        """Unique among all cases."""
        return f"training-{super().key}"

    @property
    def work(self) -> Work:
        """Three times that of the forward pass: the gradients of maps and of weights take as much each."""
        forward = super().work
        return Work(3 * forward.bytes, 3 * forward.macs)

    def make(self, folder: Path) -> tuple[Tensors, dict[str, Answer]]:
        """Random images, and the logits in training mode of the checked ones.

        A batch repeats its images, so that its statistics are theirs.
        """
        torch.manual_seed(SEED + 1)
        images = torch.randn(KEPT_IMAGES, 3, self.resolution, self.resolution)
        model = trained(network(folder, self))
        batch = self.device.put(images)
        with effkernels.use_backend("torch"), torch.no_grad():
            eager = module_by_module(self.device.put(model))(batch)
            exact_model = model.double()
            features = exact_model.forward_head(
                exact_model.forward_features(batch.double()), pre_logits=True
            )
        classifier = exact_model.classifier
        assert isinstance(classifier, nn.Linear)
        magnitude = (features.abs() @ classifier.weight.abs().T).max().item()
        kept = kept_images(self.batch)
        exact = classifier(features).detach()[kept]
        return {"images": images}, {
            "result": Answer(exact, eager[kept], magnitude, classifier.in_features)
        }


def trained(model: nn.Module) -> nn.Module:
    """The same model in training mode, without what is random."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.rate = 0.0
        elif type(module).__name__ == "StochasticDepth":  # torchvision's
            module.p = 0.0
    return model.requires_grad_(True).train()


def suites(scope: Scope) -> list[Suite]:
    """B0 on a CPU, in float32; not among the default cases, because steps take long."""
    if scope.device != CPU:
        return []
    cases = (TrainingCase(B0, 224, _BATCH),)
    heading, contestants = "A training step", scope.contestants("training")
    return [
        Suite("training", heading, cases, contestants, _TIMING, "networks", growth=True, place=12)
    ]


def labels(images: Tensor) -> Tensor:
    """A class for each image."""
    return torch.arange(len(images), device=images.device) * 7 % 1000
