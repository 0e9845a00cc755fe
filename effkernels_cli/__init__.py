"""The ``effkernels`` command: its subcommands, options and errors.

It is a package of its own because importing `effkernels` imports torch, which takes seconds: ``--help``, ``--version``
and usage errors are answered without that. Each subcommand is implemented in the file of its name in `effkernels.cli`.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line with this process's arguments; the entry point of the console script.

    Needs typer and rich (``pip install "effkernels[cli]"``); without them it prints that and exits with 2.
    """
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        print(
            f'effkernels: the command line needs {error.name}: pip install "effkernels[cli]"',
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    from effkernels_cli.app import app

    app(prog_name="effkernels")
