"""Chooses the cases of a test that run by default."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest


def slow_unless(fast: Container[Any], values: Iterable[Any]) -> list[Any]:
    """``values`` for `pytest.mark.parametrize`; those not in ``fast`` are marked slow.

    A value that is a tuple, the arguments of one case, is fast if it or its first element is in ``fast``.
    """
    cases = []
    for value in values:
        arguments = value if isinstance(value, tuple) else (value,)
        marks = () if value in fast or arguments[0] in fast else pytest.mark.slow
        cases.append(pytest.param(*arguments, marks=marks))
    return cases
