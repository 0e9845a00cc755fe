"""Labelled pictures: folders of classes, Fashion-MNIST, and parts of them."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effkernels.data.pictures import PICTURE_SUFFIXES, pictures_below
from effkernels.preprocessing import read_image

if TYPE_CHECKING:
    from PIL import Image

FASHION_MNIST = "fashion-mnist"
"""The data set of Xiao et al. 2017 (arXiv 1708.07747): 60,000 + 10,000 grey pictures of 28 x 28 pixels."""

# Where Debian's package puts it.
_FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_FASHION_FILES = {"train": "train", "test": "t10k"}


class Source(ABC):
    """Pictures and their classes, by index.

    Attributes:
        classes: names, in the order of the classifier's outputs.
        labels: the class of each picture, an index into ``classes``.
    """

    classes: tuple[str, ...]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def picture(self, index: int) -> Image.Image:
        """Picture ``index`` as RGB.

        Raises:
            ValueError: it cannot be read; the message is one line that names it.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call picture ``index`` in messages."""

    def fingerprint(self) -> str:
        """Of names, labels and classes: training goes on only with the same pictures."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for index, label in enumerate(self.labels):
            digest.update(f"\0{self.name(index)}\0{label}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


class FolderSource(Source):
    """A folder with one folder of pictures for each class, in which they may lie at any depth.

    Raises:
        ValueError: there is no such folder, it has fewer than two classes, one of them is empty, cannot be
            listed, or links back to the folder itself.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"no such folder: {folder}")
        self.folder = folder
        classes = sorted(
            entry.name
            for entry in folder.iterdir()
            if entry.is_dir() and not entry.name.startswith(".")
        )
        if len(classes) < 2:
            found = f"only {classes[0]!r}" if classes else "none"
            raise ValueError(
                f"{folder} must hold a folder of pictures for each class, at least two; found {found}"
            )
        self.paths: list[Path] = []
        labels: list[int] = []
        empty = []
        ancestors = {folder.resolve(), *folder.resolve().parents}
        for label, name in enumerate(classes):
            if (folder / name).resolve() in ancestors:
                raise ValueError(f"{folder / name} links back to {(folder / name).resolve()}")
            pictures, denied = pictures_below(folder / name)
            if denied:
                raise ValueError(f"{denied[0].path}: {denied[0].problem}")
            if not pictures:
                empty.append(name)
            self.paths += pictures
            labels += [label] * len(pictures)
        if empty:
            raise ValueError(
                f"{folder}: {len(empty)} of {len(classes)} classes have no pictures: "
                f"{', '.join(empty[:5])}{' ...' if len(empty) > 5 else ''} (looked for "
                f"{' '.join(sorted(PICTURE_SUFFIXES))})"
            )
        self.classes, self.labels = tuple(classes), labels

    def picture(self, index: int) -> Image.Image:
        """As :func:`effkernels.preprocessing.read_image` reads it: upright, RGB."""
        return read_image(self.paths[index])

    def name(self, index: int) -> str:
        """The path below the folder, so that a copy elsewhere is the same data."""
        return str(self.paths[index].relative_to(self.folder))


class ArraySource(Source):
    """Pictures in memory: (N, H, W) or (N, H, W, 3) uint8, their labels, and the classes' names."""

    def __init__(
        self,
        pictures: np.ndarray[Any, np.dtype[np.uint8]],
        labels: Sequence[int],
        classes: Sequence[str],
        title: str = "picture",
    ) -> None:
        if len(pictures) != len(labels):
            raise ValueError(f"{len(pictures)} pictures have {len(labels)} labels")
        if not all(0 <= label < len(classes) for label in labels):
            raise ValueError(f"labels must lie in 0 to {len(classes) - 1}")
        self.pictures, self.labels, self.classes = pictures, labels, tuple(classes)
        self.title = title

    def picture(self, index: int) -> Image.Image:
        """Grey pictures have three equal channels."""
        from PIL import Image

        return Image.fromarray(self.pictures[index]).convert("RGB")

    def name(self, index: int) -> str:
        """Its number."""
        return f"{self.title} {index}"

    def fingerprint(self) -> str:
        """Of the pixels as well: their names are mere numbers."""
        pixels = zlib.crc32(self.pictures.tobytes())
        return f"{super().fingerprint()}-{pixels:08x}"


class Subset(Source):
    """Some pictures of another source, by their indices in it."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source, self.indices, self.classes = source, indices, source.classes
        self.labels = [source.labels[index] for index in indices]

    def picture(self, index: int) -> Image.Image:
        """As the other source reads it."""
        return self.source.picture(self.indices[index])

    def name(self, index: int) -> str:
        """As the other source names it."""
        return self.source.name(self.indices[index])


def is_fashion_mnist(data: str) -> bool:
    """Whether ``data`` is ``fashion-mnist`` or ``fashion-mnist:FOLDER``."""
    return data.partition(":")[0] == FASHION_MNIST


def fashion_mnist(data: str, part: str) -> ArraySource:
    """Fashion-MNIST from IDX files, compressed or not.

    Args:
        data: ``fashion-mnist`` for the files of Debian's package, or ``fashion-mnist:FOLDER``.
        part: ``train`` or ``test``.

    Raises:
        ValueError: the files are missing or damaged. The message says where to get them.
    """
    given = data.partition(":")[2]
    folder = Path(given) if given else _FASHION_FOLDER
    stem = _FASHION_FILES[part]
    pictures = _idx(folder, f"{stem}-images-idx3-ubyte", 3)
    labels = _idx(folder, f"{stem}-labels-idx1-ubyte", 1)
    if len(pictures) != len(labels):
        raise ValueError(f"{folder}: {len(pictures)} pictures have {len(labels)} labels")
    return ArraySource(pictures, labels.tolist(), _FASHION_CLASSES, f"{FASHION_MNIST} {part}")


def _idx(folder: Path, name: str, dimensions: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An array of bytes in LeCun's IDX format: two zeros, 8 for uint8, the number of dimensions, these, the bytes."""
    path = next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
    if path is None:
        raise ValueError(
            f"no {name} in {folder}: apt-get install dataset-fashion-mnist, or download it with "
            f"torchvision.datasets.FashionMNIST('FOLDER', download=True) and pass --data "
            f"{FASHION_MNIST}:FOLDER/FashionMNIST/raw"
        )
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    header = 4 + 4 * dimensions
    shape = tuple(np.frombuffer(content[4:header], ">u4").tolist())
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) != header + np.prod(shape):
        raise ValueError(f"{path} is damaged: it is no IDX file of {dimensions} dimensions")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
