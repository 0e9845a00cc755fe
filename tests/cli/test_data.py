"""The files shipped with the package."""

from __future__ import annotations

from importlib.resources import files

from PIL import Image

from effkernels.data import SAMPLE_PICTURES, imagenet_classes, sample_pictures
from oracles import oracle


def test_a_thousand_distinct_class_names_in_output_order() -> None:
    names = imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    assert all(name == name.strip() and name for name in names)
    known = {0: "tench", 281: "tabby", 285: "Egyptian cat", 967: "espresso", 999: "toilet tissue"}
    assert {index: names[index] for index in known} == known


def test_class_names_equal_torchvisions_except_for_ambiguous_ones() -> None:
    theirs = oracle("torchvision.models._meta")._IMAGENET_CATEGORIES
    differing = {
        index: (ours, other)
        for index, (ours, other) in enumerate(zip(imagenet_classes(), theirs, strict=True))
        if ours != other
    }
    assert differing == {
        134: ("crane (bird)", "crane bird"),
        517: ("crane (machine)", "crane"),
        639: ("tank suit", "maillot tank suit"),
    }


def test_sample_pictures_open_and_their_source_is_named() -> None:
    sources = files("effkernels.data").joinpath("SOURCES.md").read_text(encoding="utf-8")
    with sample_pictures() as paths:
        assert tuple(path.name for path in paths) == SAMPLE_PICTURES
        for path in paths:
            with Image.open(path) as picture:
                assert picture.mode == "RGB"
                assert f"{picture.width} x {picture.height}" in sources
            assert f"`{path.name}`" in sources
    assert sources.count("CC0 1.0") == len(SAMPLE_PICTURES)
