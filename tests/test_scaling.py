"""What ``effkernels.scaling`` exports, and that importing it is cheap and not circular."""

from __future__ import annotations

import pytest

from effkernels import scaling
from processes import run_python


def test_every_public_name_resolves() -> None:
    for name in scaling.__all__:
        assert getattr(scaling, name) is not None
    assert dir(scaling) == sorted(scaling.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'fit_buget'"):
        _ = scaling.fit_buget


@pytest.mark.parametrize("first", ["cost", "fit_budget", "table_rows"])
def test_any_part_can_be_imported_first(first: str) -> None:
    done = run_python("-c", f"from effkernels.scaling import {first}")
    assert done.returncode == 0, done.stderr


def test_the_package_does_not_load_the_cost_model() -> None:
    code = (
        "import sys, effkernels\n"
        "loaded = {m for m in sys.modules if m.startswith('effkernels.scaling')}\n"
        "assert loaded == {'effkernels.scaling', 'effkernels.models.scaling'}, loaded\n"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
