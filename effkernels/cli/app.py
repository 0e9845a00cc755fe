"""The typer application: its subcommands, and what happens to an error."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import effkernels
from effkernels.cli.convert import convert
from effkernels.cli.demo import demo
from effkernels.cli.explain import explain
from effkernels.cli.info import info
from effkernels.cli.output import one_line
from effkernels.cli.predict import predict
from effkernels.cli.table import table

# typer carries its own copy of click since 0.20 or so and exports BadParameter alone of its errors.
_UsageError: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)

# What the library raises for bad input, and the system, torch and CUDA for trouble outside of it.
# Anything else (KeyError, AssertionError ...) is a bug, and its traceback is wanted.
_EXPECTED = (ValueError, TypeError, NotImplementedError, ImportError, OSError, RuntimeError)


class _OneLineErrors(TyperGroup):
    """Prints any expected error as one line on stderr and exits with 2."""

    def main(self, *args: Any, **options: Any) -> Any:
        # Standalone, it would print errors in a box of several lines.
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has gone ("| head"). What is still buffered must not raise again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (KeyboardInterrupt, typer.Abort):
            sys.exit(130)
        except _UsageError as error:
            _fail(getattr(error, "format_message", error.__str__)())
        except _EXPECTED as error:
            if os.environ.get("EFFKERNELS_TRACEBACK"):
                traceback.print_exc()
            _fail(str(error) or type(error).__name__)
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    print(f"effkernels: {one_line(message)}", file=sys.stderr)
    sys.exit(2)


app = typer.Typer(
    cls=_OneLineErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, predict, table, info, explain, convert):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"effkernels {effkernels.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Fast EfficientNets for PyTorch.

    Errors are one line; with EFFKERNELS_TRACEBACK=1 in the environment the traceback comes first.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
