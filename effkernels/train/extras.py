"""Packages that only some trainings need: imported when they are needed, with an error that says how to get them."""

from __future__ import annotations

import importlib
from typing import Any


def need(module: str, what: str, extra: str = "train") -> Any:
    """Import ``module``, because ``what`` needs it; ``pip install "effkernels[extra]"`` would install it.

    Raises:
        ImportError: it is not installed, or does not import here (torchvision needs the PyTorch that it was
            built for). The message is one line.
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)  # first: an error about a part of it would not name it
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise ImportError(
                f'{what} needs {package}, which is not installed: pip install "effkernels[{extra}]"'
            ) from None
        raise _broken(what, package, error) from None
    except (
        Exception
    ) as error:  # binary packages fail in any way with a PyTorch that they were not built for
        raise _broken(what, package, error) from None


def _broken(what: str, package: str, error: Exception) -> ImportError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ImportError(f"{what} needs {package}, which does not import here: {reason}")
