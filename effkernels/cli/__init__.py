"""The ``effkernels`` command: demo, predict, table, info, explain and convert.

Needs typer and rich (``pip install "effkernels[cli]"``); without them it says so and exits with 2.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process; the entry point of the console script."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        print(
            f'effkernels: the command line needs {error.name}: pip install "effkernels[cli]"',
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    from effkernels.cli.app import app

    app(prog_name="effkernels")
