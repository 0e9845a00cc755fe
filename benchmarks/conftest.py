"""What every benchmark prints first: which copy is measured, on what."""

from __future__ import annotations

from pathlib import Path

import torch

import effkernels


def pytest_report_header() -> list[str]:
    available = [s.name for s in effkernels.backends().values() if s.available]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    return [
        f"effkernels {effkernels.__version__} from {Path(effkernels.__file__).parent}: "
        f"backends {', '.join(available)}",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {device}",
    ]
