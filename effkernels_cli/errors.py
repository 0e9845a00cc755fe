"""Errors as one line on standard error, in the words of the command line."""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

# typer carries its own copy of click since 0.20 or so and exports BadParameter alone of its errors.
_UsageError: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)

# What the library raises for bad input, and the system, torch and CUDA for trouble outside of it.
# Anything else (KeyError, AssertionError ...) is a bug, and its traceback is wanted.
_EXPECTED = (ValueError, TypeError, NotImplementedError, ImportError, OSError, RuntimeError)

# Python's keyword arguments that options stand for, as the library's messages name them.
_KEYWORDS = "batch_size|device|dtype|resolution|source|topk|use_ema|weights"
_KEYWORD = re.compile(rf"""\b({_KEYWORDS})=('[^']*'|"[^"]*"|[\w.:/-]*)""")


def one_line(message: str) -> str:
    """A message with its line breaks and runs of blanks made single blanks, and control characters escaped."""
    return escaped(" ".join(message.split()))


def escaped(text: str) -> str:
    """Text that cannot act on a terminal: what is not printable as Python would write it in a string."""
    return "".join(
        c if c.isprintable() or "\ud800" <= c <= "\udfff" else repr(c)[1:-1] for c in text
    )


def in_options(message: str) -> str:
    """A message of the library in the words of the command line: ``source='x'`` becomes ``--source 'x'``."""

    def option(found: re.Match[str]) -> str:
        name, value = found.group(1).replace("_", "-"), found.group(2)
        if name == "use-ema":
            return "--no-use-ema" if value == "False" else "--use-ema"
        return f"--{name} {value}".rstrip()

    return _KEYWORD.sub(option, message)


class OneLineErrors(TyperGroup):
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
            _fail(in_options(str(error)) or type(error).__name__)
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    print(f"effkernels: {one_line(message)}", file=sys.stderr)
    sys.exit(2)
