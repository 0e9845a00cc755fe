"""Writes the pages of this folder from signatures and docstrings: ``python docs/api/write.py`` after changing one."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent
MODULES = ("effkernels", "effkernels.ops", "effkernels.nn", "effkernels.scaling", "effkernels.choosing",
           "effkernels.checkpoints", "effkernels.models", "effkernels.train", "effkernels.studies")  # fmt: skip
NOTE = "<!-- written by python docs/api/write.py -->"

_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_NAMED = re.compile(r"[\w.*`, ]+: ")
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Warns|Yields|Source|Example|Examples):")


def plain(text: str) -> str:
    """A docstring's text as Markdown."""
    return _ROLE.sub(r"`\1`", text).replace("``", "`")


def body(docstring: str) -> Iterator[str]:
    """The lines of a docstring; sections such as ``Args:`` get a heading, and what has a name there a bullet."""
    in_section = False
    for line in docstring.splitlines():
        section = _SECTION.fullmatch(line)
        if section:
            in_section = True
            yield from ("", f"**{section[1]}**", "")
        elif in_section and line.startswith("    "):
            item = plain(line[4:])
            if item.startswith(" "):
                yield f"  {item.strip()}"
            else:
                yield f"- {item}" if _NAMED.match(item) else item
        else:
            in_section = in_section and not line
            yield plain(line)


class _Long:
    """In place of a default that takes lines to write."""

    def __repr__(self) -> str:
        return "..."


def _short(parameter: inspect.Parameter) -> inspect.Parameter:
    given = parameter.default is not parameter.empty
    long = given and len(repr(parameter.default)) > 60
    return parameter.replace(default=_Long()) if long else parameter


def signature(value: Any) -> str:
    """As in the source: annotations without quotes, a parameter a line where they are many."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return "()"
    found = found.replace(parameters=[_short(one) for one in found.parameters.values()])
    text = re.sub(r"ForwardRef\('([^']*)'\)", r"\1", str(found))
    text = re.sub(r"((?:: |-> ))'([^']*)'", r"\1\2", text)
    if len(text) <= 90 or not found.parameters:
        return text
    inside, end = re.fullmatch(r"\((.*)\)( -> .*)?", text).groups()  # type: ignore[union-attr]
    return (
        "(\n    " + re.sub(r", (?=\*+\w|\*,|\w+(?:: |=))", ",\n    ", inside) + f",\n){end or ''}"
    )


def entry(name: str, value: Any, seen: dict[str, str]) -> Iterator[str]:
    """The heading, signature and docstring of one public name, and of a class its public methods."""
    yield f"## {name}"
    docstring = inspect.getdoc(value) or ""
    if inspect.isfunction(value) or inspect.isclass(value):
        first, _, rest = docstring.partition("\n")
        same = seen.setdefault(signature(value) + rest, name)
        if same != name:
            yield from ("", f"{plain(first)} Arguments as those of `{same}`.", "")
            return
        yield from ("", "```python", f"{name}{signature(value)}", "```", "", *body(docstring))
        for method, function in vars(value).items() if inspect.isclass(value) else ():
            if inspect.isfunction(function) and not method.startswith("_") and function.__doc__:
                yield from ("", "```python", f"{name}.{method}{signature(function)}", "```", "")
                yield from body(inspect.getdoc(function) or "")
    elif isinstance(value, ModuleType):
        yield from ("", f"See [{value.__name__}]({value.__name__}.md).")
    else:
        yield from ("", f"A constant of type `{type(value).__name__}`.")
    yield ""


def page(module_name: str) -> str:
    module = importlib.import_module(module_name)
    lines = [f"# {module_name}", "", NOTE, "", *body(inspect.getdoc(module) or ""), ""]
    seen: dict[str, str] = {}
    for name in module.__all__:
        if not name.startswith("_"):
            lines += entry(name, getattr(module, name), seen)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def pages() -> dict[str, str]:
    """The text of each page by its file's name."""
    index = [f"- [{name}]({name}.md)" for name in MODULES]
    start = ["# The public interface", "", NOTE, "", *index, ""]
    return {"README.md": "\n".join(start), **{f"{name}.md": page(name) for name in MODULES}}


def main() -> int:
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
