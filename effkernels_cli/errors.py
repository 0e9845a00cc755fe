"""Prints errors as one line on standard error, with options in place of Python's argument names."""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

# Since about 0.20 typer contains its own copy of click, and exports only BadParameter of its errors.
_UsageError: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)

# The exceptions that the library raises for bad input, and those of the system, torch and CUDA.
# Anything else (KeyError, AssertionError ...) is a bug and shows its traceback.
_EXPECTED = (ValueError, TypeError, NotImplementedError, ImportError, OSError, RuntimeError)

# Keyword arguments in the library's messages, and the options that set them.
_KEYWORDS = "|".join(
    (
        *("batch_size", "device", "dtype", "resolution", "source", "topk", "use_ema", "weights"),
        *("latency", "max_macs", "max_memory", "macs", "memory", "parameters"),
    )
)
_KEYWORD = re.compile(rf"""\b({_KEYWORDS})=('[^']*'|"[^"]*"|[\w.:/-]*)""")


def one_line(message: str) -> str:
    """``message`` with runs of line breaks and blanks replaced by one blank, and control characters escaped."""
    return escaped(" ".join(message.split()))


def escaped(text: str) -> str:
    """``text`` with unprintable characters escaped as in a Python string, so that it cannot control a
    terminal.
    """
    return "".join(
        c if c.isprintable() or "\ud800" <= c <= "\udfff" else repr(c)[1:-1] for c in text
    )


def in_options(message: str) -> str:
    """A message of the library with options for argument names: ``source='x'`` becomes ``--source 'x'``."""

    def option(found: re.Match[str]) -> str:
        name, value = found.group(1).removeprefix("max_").replace("_", "-"), found.group(2)
        if name == "use-ema":
            return "--no-use-ema" if value == "False" else "--use-ema"
        return f"--{name} {value}".rstrip()

    return _KEYWORD.sub(option, message)


class OneLineErrors(TyperGroup):
    """Prints any expected error as one line on stderr and exits with 2."""

    def main(self, *args: Any, **options: Any) -> Any:
        # In standalone mode click would print errors in a box of several lines.
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has closed the pipe ("| head"). The buffered rest must not raise again at exit.
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
