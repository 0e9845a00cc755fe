"""Finds picture files and prepares them in batches; files that cannot be read are listed separately."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from effkernels.data.pictures import PICTURE_SUFFIXES, Skipped, pictures_below
from effkernels.preprocessing import Preprocessing

_DECODERS = min(8, os.cpu_count() or 1)  # threads; Pillow releases the GIL while it decodes


@dataclass(frozen=True)
class Batch:
    """Prepared pictures and their files, in order, and the skipped files."""

    paths: list[Path]
    tensors: list[Tensor]
    skipped: list[Skipped]


STANDARD_INPUT = Path("-")
"""The argument that means: read one picture from standard input."""


def collect(given: Sequence[str]) -> tuple[list[Path], list[Skipped]]:
    """Files in the order given; each folder is replaced by the pictures in and below it, sorted; "-" stays as it
    is.

    Hidden files and folders are skipped, and links to folders are not followed. Only regular files are read:
    reading a pipe, a socket or a device might never end.

    Returns:
        The files, and the paths that give none: those that do not exist, and folders without pictures.
    """
    files: list[Path] = []
    skipped: list[Skipped] = []
    for name in given:
        path = Path(name)
        if path == STANDARD_INPUT:
            files.append(path)
        elif "://" in name:
            problem = f"pictures are files: download {name!r} first, or pipe it into 'predict -'"
            skipped.append(Skipped(name, problem))
        elif path.is_dir():
            found, denied = pictures_below(path)
            files += found
            skipped += denied
            if not found and not denied:
                known = " ".join(sorted(PICTURE_SUFFIXES))
                problem = f"no pictures in folder '{path}' (looked for {known})"
                skipped.append(Skipped(name, problem))
        elif path.is_file():
            files.append(path)
        elif path.exists():
            problem = f"'{path}' is not a regular file: pipe its content into 'predict -'"
            skipped.append(Skipped(name, problem))
        else:
            skipped.append(Skipped(name, f"no such file or folder: '{path}'"))
    return files, skipped


def prepare(
    paths: Sequence[Path], batch_size: int, preprocessing: Preprocessing
) -> Iterator[Batch]:
    """Read and transform pictures in batches, decoding the next batch in the background.

    Raises:
        ImportError: Pillow is not installed.
    """
    chunks = [paths[i : i + batch_size] for i in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(_DECODERS) as pool:

        def submit(chunk: Sequence[Path]) -> list[Future[Tensor]]:
            return [pool.submit(_transform, path, preprocessing) for path in chunk]

        ahead = submit(chunks[0]) if chunks else []
        for position, chunk in enumerate(chunks):
            futures = ahead
            ahead = submit(chunks[position + 1]) if position + 1 < len(chunks) else []
            yield _gather(chunk, futures)


def _transform(path: Path, preprocessing: Preprocessing) -> Tensor:
    return preprocessing(sys.stdin.buffer if path == STANDARD_INPUT else path)


def _gather(chunk: Sequence[Path], futures: Sequence[Future[Tensor]]) -> Batch:
    batch = Batch([], [], [])
    for path, future in zip(chunk, futures, strict=True):
        error = future.exception()
        if error is None:
            batch.paths.append(path)
            batch.tensors.append(future.result())
        elif isinstance(error, ValueError):
            # Not every message names the file: a picture may be read, and then be refused as too narrow.
            problem = str(error) if str(path) in str(error) else f"{path}: {error}"
            batch.skipped.append(Skipped(str(path), problem))
        else:
            raise error
    return batch
