"""How a subcommand gets from its options to the code that it stands for."""

from __future__ import annotations

import importlib
from typing import Any


def call(command: str, options: dict[str, Any]) -> None:
    """Call the function ``command`` of the module of that name in `effkernels.cli`, with the options as keywords."""
    module = importlib.import_module(f"effkernels.cli.{command}")
    getattr(module, command)(**options)
