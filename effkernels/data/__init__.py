"""Two sample pictures and the ImageNet class names; ``SOURCES.md`` says where they come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

SAMPLE_PICTURES = ("chelsea.jpg", "coffee.jpg")
"""A cat and an espresso, in the order that ``effkernels demo`` shows them."""


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1000 class names of ILSVRC 2012, in the order of the classifier's outputs. All are
    distinct.
    """
    text = files(__name__).joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


@contextmanager
def sample_pictures() -> Iterator[tuple[Path, ...]]:
    """Paths of the sample pictures, in the order of :data:`SAMPLE_PICTURES`.

    If the package is imported from a zip file, they are extracted for the duration of the ``with``
    block.
    """
    with ExitStack() as stack:
        folder = files(__name__)
        yield tuple(stack.enter_context(as_file(folder.joinpath(name))) for name in SAMPLE_PICTURES)
