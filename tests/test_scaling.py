"""The exports of ``effkernels.scaling``, wherever they are defined."""

from __future__ import annotations

import pytest

from effkernels import scaling
from processes import run_python
from tiers import slow_unless


def test_every_public_name_resolves() -> None:
    for name in scaling.__all__:
        assert getattr(scaling, name) is not None


@pytest.mark.parametrize(
    "first", slow_unless(["table_rows"], ["model_cost", "fit_budget", "table_rows"])
)
def test_any_part_can_be_imported_first(first: str) -> None:
    done = run_python("-c", f"from effkernels.scaling import {first}")
    assert done.returncode == 0, done.stderr
