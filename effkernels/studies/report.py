"""What a study leaves: a JSON document, a page with its table, and a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from effkernels.studies.setting import epochs_of
from effkernels.train.extras import need
from effkernels.train.sources import FASHION_MNIST

Document = dict[str, Any]

_DOTS_PER_INCH = 110


def percent(share: float | None, digits: int = 1) -> str:
    """0.7512 as "75.1"; None as "-"."""
    return "-" if share is None else f"{100 * share:.{digits}f}"


def with_error(mean: float | None, error: float | None) -> str:
    """In percent, with the standard error: "75.1 ± 0.4"."""
    return percent(mean) if error is None else f"{percent(mean)} ± {percent(error)}"


def data_title(setting: Mapping[str, Any]) -> str:
    """What a setting's pictures are, from its JSON."""
    name = str(setting["data"])
    return "Fashion-MNIST" if name == FASHION_MNIST else f"a folder ({name.partition(':')[2]})"


def base_title(setting: Mapping[str, Any]) -> str | None:
    """The base of networks at full size, from its JSON; None for the small one."""
    base = setting.get("base")
    return None if base is None else f"{base['name']} at {base['resolution']} pixels, scaled"


def about_trainings(setting: Mapping[str, Any]) -> str:
    """How the networks of a study were trained and measured, without a full stop."""
    base, epochs = base_title(setting), epochs_of(setting)
    return (
        ("" if base is None else f"{base}. ")
        + f"Each training: {setting['pictures']} pictures of {data_title(setting)}, "
        f"{epochs} epoch{'' if epochs == 1 else 's'}; "
        f"accuracy on {setting['held_out']} training pictures held out"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is to the left, the others to the right."""
    marks = ["---", *("---:" for _ in head[1:])]
    lines = [head, marks, *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def write(document: Document, page: str, draw: Callable[[Any], None], folder: Path) -> list[Path]:
    """Write ``NAME.json``, ``NAME.md`` and ``NAME.png``, where NAME is the document's ``study``.

    Each is replaced as a whole.

    Args:
        document: of plain JSON types.
        page: Markdown.
        draw: draws on a matplotlib figure.
        folder: is made where it is not there.

    Raises:
        ValueError: the folder cannot be written.
        ImportError: matplotlib is not installed.
    """
    figures = need("matplotlib.figure", "the picture of a study", extra="studies")
    figure = figures.Figure(figsize=(8, 5), layout="constrained")
    draw(figure)
    name = document["study"]
    text = json.dumps(rounded(document), indent=1, allow_nan=False) + "\n"
    paths = [folder / f"{name}.{suffix}" for suffix in ("json", "md", "png")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(paths[0], lambda path: path.write_text(text))
        _replace(paths[1], lambda path: path.write_text(page.rstrip() + "\n"))
        _replace(
            paths[2],
            lambda path: figure.savefig(
                path, dpi=_DOTS_PER_INCH, format="png", metadata={"Software": None}
            ),
        )
    except OSError as error:
        raise ValueError(f"cannot write into {folder}: {error.strerror or error}") from None
    return paths


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()


def rounded(value: Any) -> Any:
    """A document with six digits of each number, as :func:`write` stores it."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return value
