"""Find picture files and prepare them in batches; the ones that cannot be read are told apart."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from effkernels.preprocessing import Preprocessing

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
"""What is taken for a picture inside a folder. A file given by name is read whatever its name."""

_DECODERS = min(8, os.cpu_count() or 1)  # threads: Pillow decodes and resizes outside of the GIL


@dataclass(frozen=True)
class Skipped:
    """A path that gives no picture, and why."""

    path: Path
    problem: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(frozen=True)
class Batch:
    """Prepared pictures and their files, in order, and the files among them that were skipped."""

    paths: list[Path]
    tensors: list[Tensor]
    skipped: list[Skipped]


def collect(given: Sequence[Path]) -> tuple[list[Path], list[Skipped]]:
    """Files in the order given; in place of a folder the pictures in and below it, sorted.

    Hidden files and folders are passed over, links to folders are not followed.

    Returns:
        The files, and the paths of which nothing comes: not there, or a folder without pictures.
    """
    files: list[Path] = []
    skipped: list[Skipped] = []
    for path in given:
        if path.is_dir():
            found, denied = _pictures_below(path)
            files += found
            skipped += denied
            if not found and not denied:
                known = " ".join(sorted(PICTURE_SUFFIXES))
                problem = f"no pictures in folder '{path}' (looked for {known})"
                skipped.append(Skipped(path, problem))
        elif path.exists():
            files.append(path)
        else:
            skipped.append(Skipped(path, f"no such file or folder: '{path}'"))
    return files, skipped


def _pictures_below(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """The pictures in and below a folder, sorted, and the folders that may not be listed."""
    found: list[Path] = []
    denied: list[Skipped] = []

    def report(error: OSError) -> None:
        denied.append(Skipped(Path(error.filename), f"cannot list folder: {error}"))

    for parent, folders, names in os.walk(folder, onerror=report):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix.lower() in PICTURE_SUFFIXES:
                found.append(path)
    return sorted(found), denied


def prepare(
    paths: Sequence[Path], batch_size: int, preprocessing: Preprocessing
) -> Iterator[Batch]:
    """Read and transform pictures in batches; the next batch is decoded meanwhile.

    Raises:
        ImportError: Pillow is not installed.
    """
    chunks = [paths[i : i + batch_size] for i in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(_DECODERS) as pool:

        def submit(chunk: Sequence[Path]) -> list[Future[Tensor]]:
            return [pool.submit(preprocessing, path) for path in chunk]

        ahead = submit(chunks[0]) if chunks else []
        for position, chunk in enumerate(chunks):
            futures = ahead
            ahead = submit(chunks[position + 1]) if position + 1 < len(chunks) else []
            yield _gather(chunk, futures)


def _gather(chunk: Sequence[Path], futures: Sequence[Future[Tensor]]) -> Batch:
    batch = Batch([], [], [])
    for path, future in zip(chunk, futures, strict=True):
        error = future.exception()
        if error is None:
            batch.paths.append(path)
            batch.tensors.append(future.result())
        elif isinstance(error, ValueError):
            # Not every message names the file: a picture can be read and then be too narrow.
            problem = str(error) if str(path) in str(error) else f"{path}: {error}"
            batch.skipped.append(Skipped(path, problem))
        else:
            raise error
    return batch
