"""Finds picture files in folders."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PICTURE_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
"""Suffixes of pictures inside a folder."""


@dataclass(frozen=True)
class Skipped:
    """A path that gives no picture, and the reason."""

    path: str
    problem: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def pictures_below(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """The pictures in and below a folder, sorted, and the folders that cannot be listed.

    Hidden files and folders are left out, and links to folders are not followed, so that loops do no harm.
    """
    found: list[Path] = []
    denied: list[Skipped] = []

    def report(error: OSError) -> None:
        denied.append(Skipped(error.filename, f"cannot list folder: {error}"))

    for parent, folders, names in os.walk(folder, onerror=report):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            known = not name.startswith(".") and path.suffix.lower() in PICTURE_SUFFIXES
            if known and (path.is_file() or not path.exists()):  # a broken link is reported later
                found.append(path)
    return sorted(found), denied
