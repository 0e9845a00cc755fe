"""What a recorded graph calls."""

from __future__ import annotations

import torch


def recorded(graph: torch.fx.Graph) -> set[str]:
    """The effkernels ops in a graph, by name."""
    targets = (str(node.target) for node in graph.nodes if node.op == "call_function")
    return {target for target in targets if "effkernels" in target}
