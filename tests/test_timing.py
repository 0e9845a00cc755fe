"""Calls timed in turns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from effkernels import timing
from effkernels.timing import in_turns, quartiles


def test_turns_alternate() -> None:
    order: list[str] = []
    runs = [lambda: order.append("A"), lambda: order.append("B")]
    rounds = in_turns(runs, seconds=0.0, fewest=3, most=9, warm_up=1)
    assert len(rounds) == 3
    assert "".join(order) == "AB" + "AB" + "BA" + "AB"


def test_a_turn_of_several_calls_begins_with_one_that_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    taken = iter([5.0, 1.0, 3.0, 7.0, 7.0, 2.0, 4.0, 9.0])
    monkeypatch.setattr(timing, "milliseconds", lambda run: run() or next(taken))
    runs = [lambda: order.append("A"), lambda: order.append("B")]
    rounds = in_turns(runs, seconds=0.0, fewest=2, most=2, calls=[3, 1])
    assert "".join(order) == "AAAA" + "BB" + "BB" + "AAAA"
    assert rounds == [(3.0, 7.0), (4.0, 7.0)]  # medians; the second round begins with B


def test_no_more_rounds_than_asked_for() -> None:
    assert len(in_turns([lambda: None], seconds=60.0, fewest=1, most=4)) == 4


def test_quartiles_of_few_values() -> None:
    assert quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


def test_the_name_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(
        Path, "read_text", lambda path: "flags : a b\nmodel name\t: Some CPU @ 2 GHz \nmodel : 1\n"
    )
    assert timing.device_name(cpu) == "Some CPU @ 2 GHz"

    def absent(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert timing.device_name(cpu) == "aarch64"
