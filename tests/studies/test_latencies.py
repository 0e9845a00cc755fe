"""Latencies: measured once, in turns with the base, and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from effkernels import studies
from effkernels.studies import Architecture, Latencies
from effkernels.studies.latencies import latencies

BASE, WIDE, DEEP = (
    studies.Triple(*factors).apply()
    for factors in ((1.0, 1.0, 1.0), (1.0, 1.4, 1.0), (2.0, 1.0, 1.0))
)


def test_what_is_measured_later_is_scaled_by_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[Architecture]] = []
    pace = iter([1.0, 3.0])
    seven = replace(studies.SMALL, num_classes=7, in_channels=3)
    seconds = {BASE: 0.25, WIDE: 0.5, DEEP: 0.75}

    def measured(networks: Sequence[Architecture], base: studies.Base) -> list[float]:
        assert base == seven
        asked.append(list(networks))
        slower = next(pace)
        return [slower * seconds[network] for network in networks]

    monkeypatch.setattr("effkernels.studies.latencies.latencies", measured)
    path = tmp_path / "new" / "latencies.json"
    first = Latencies(path, seven)
    assert first.of([WIDE, WIDE]) == [0.5, 0.5]
    assert first(BASE) == 0.25
    again = Latencies(path, seven)
    assert again.of([DEEP, WIDE, BASE]) == [0.75, 0.5, 0.25]
    assert again(DEEP) == 0.75
    assert asked == [[BASE, WIDE], [BASE, DEEP]]
    assert len(json.loads(path.read_text())) == 3
    others = Latencies(path)
    assert not others._known.keys() & {others._name(network) for network in seconds}
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds no latencies, or is damaged"):
        Latencies(path)


def test_networks_really_run(tmp_path: Path) -> None:
    much_more = studies.Triple(2.0, 4.0, 2.0).apply()
    small, large = latencies([BASE, much_more])
    assert 0 < small < large
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"):
        Latencies(tmp_path / "file" / "latencies.json")(BASE)
