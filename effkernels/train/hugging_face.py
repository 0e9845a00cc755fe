"""Labelled pictures of Hugging Face ``datasets``: saved folders, local files, or the hub."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkernels.preprocessing import read_image
from effkernels.train.extras import need
from effkernels.train.sources import Source

if TYPE_CHECKING:
    from PIL import Image

PREFIX = "datasets:"

_TRAIN = ("train",)
_VALIDATION = ("validation", "val", "valid", "test")


def is_hugging_face(data: str) -> bool:
    """Whether ``data`` is ``datasets:`` and a folder or a name."""
    return data.startswith(PREFIX)


class HuggingFaceSource(Source):
    """One split of a data set: its first column of pictures, and its first column of class labels.

    Args:
        data: ``datasets:PLACE``: a folder that ``save_to_disk`` wrote, or what ``datasets.load_dataset`` takes.
        training: the split to train on (``train``), or the one to validate with (``validation`` or ``test``).

    Raises:
        ValueError: it cannot be loaded, has no such split, no pictures, or no class labels.
        ImportError: datasets is not installed.
    """

    def __init__(self, data: str, *, training: bool) -> None:
        library = need("datasets", f"--data {PREFIX}...")
        self.place = data.removeprefix(PREFIX)
        rows = self._split(library, _TRAIN if training else _VALIDATION)
        pictures = _first(rows, library.Image)
        label = _first(rows, library.ClassLabel)
        if pictures is None or label is None:
            raise ValueError(
                f"{data} needs a column of pictures and one of class labels; it has "
                f"{', '.join(f'{name} ({type(kind).__name__})' for name, kind in rows.features.items())}"
            )
        self.classes = tuple(rows.features[label].names)
        self.labels = list(rows[label])
        if min(self.labels, default=0) < 0:
            raise ValueError(f"{data}: some pictures of this split have no label")
        # Undecoded: pictures are then read as those of files are, and errors name them.
        self._column: Any = rows.cast_column(pictures, library.Image(decode=False)).select_columns(
            pictures
        )
        self._name, self._rows = pictures, rows

    def _split(self, library: Any, names: tuple[str, ...]) -> Any:
        folder = Path(self.place)
        try:
            if (folder / "dataset_dict.json").is_file():
                found = library.load_from_disk(self.place)
            else:
                found = library.load_dataset(self.place)
        except (OSError, ValueError, RuntimeError, ConnectionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{PREFIX}{self.place} cannot be loaded: {reason}") from None
        for name in names:
            if name in found:
                return found[name]
        raise ValueError(
            f"{PREFIX}{self.place} has no split {' or '.join(names)}, only {', '.join(found)}"
        )

    def picture(self, index: int) -> Image.Image:
        """As :func:`effkernels.preprocessing.read_image` reads it: upright, RGB."""
        stored = self._column[index][self._name]
        if stored["bytes"] is None:
            return read_image(stored["path"])
        stream: Any = io.BytesIO(stored["bytes"])
        stream.name = self.name(index)  # for messages
        return read_image(stream)

    def name(self, index: int) -> str:
        """Its number."""
        return f"picture {index}"

    def fingerprint(self) -> str:
        """Of the labels and classes, and of the pixels what the library knows of them."""
        return f"{super().fingerprint()}-{self._rows._fingerprint}"


def _first(rows: Any, kind: Any) -> str | None:
    return next((name for name, found in rows.features.items() if isinstance(found, kind)), None)
