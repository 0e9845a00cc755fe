"""Random cases as strategies of hypothesis, which shrinks failing ones. Only this module here imports it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import hypothesis.strategies as st

from specs.drawing import Draw, Option

Made = TypeVar("Made")


class _Hypothesis:
    """Choices of hypothesis's."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        """From ``low`` to ``high``, both included."""
        return self._draw(st.integers(low, high))

    def choice(self, options: Sequence[Option]) -> Option:
        """One of them."""
        return self._draw(st.sampled_from(options))


def cases(generate: Callable[[Draw], Made]) -> st.SearchStrategy[Made]:
    """What an op's ``generate`` makes."""

    @st.composite
    def drawn(draw: st.DrawFn) -> Made:
        return generate(_Hypothesis(draw))

    return drawn()
