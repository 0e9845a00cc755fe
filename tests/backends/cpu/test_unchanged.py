"""What compiled code tells of Python objects and of tensors: every change, and nothing else."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import effkernels
from effkernels import unchanged

pytestmark = pytest.mark.skipif(
    not effkernels.backends()["cpu"].available, reason="the cpu backend is not built"
)


class Thing:
    """An object with attributes."""

    def __init__(self) -> None:
        self.one, self.two = object(), object()

    def method(self) -> None:
        """Something to patch."""


class Other(Thing):
    pass


class World:
    """Things that are looked at in all ways."""

    def __init__(self) -> None:
        self.thing, self.typed = Thing(), Thing()
        self.dict: dict[str, Any] = {"a": object(), "b": None}
        self.ordered = OrderedDict(x=object(), y=object())
        self.names = {"n": 1, "m": 2}
        self.entries = {"wanted": object(), "free": 0}
        self.empty: list[Any] = [{}, OrderedDict(), [], set()]
        self.kind = type("Kind", (Thing,), {})

    def look(self) -> unchanged.Objects:
        found = unchanged.look_at(
            instances=[self.thing],
            dicts=[self.dict, self.ordered],
            names=[self.names],
            entries=[(self.entries, "wanted")],
            types=[self.typed],
            empty=self.empty,
            attributes=[(self.kind, "method")],
        )
        assert found is not None
        return found


def _swap(values: dict[str, Any], one: str, other: str) -> None:
    values[one], values[other] = values[other], values[one]


SEEN: dict[str, Callable[[World], Any]] = {
    "an attribute": lambda w: setattr(w.thing, "one", object()),
    "one more attribute": lambda w: setattr(w.thing, "three", 3),
    "one less attribute": lambda w: delattr(w.thing, "two"),
    "another dictionary of attributes": lambda w: setattr(w.thing, "__dict__", dict(vars(w.thing))),
    "the class of an instance": lambda w: setattr(w.thing, "__class__", Other),
    "a value": lambda w: w.dict.update(a=object()),
    "a None": lambda w: w.dict.update(b=0),
    "swapped values": lambda w: _swap(w.dict, "a", "b"),
    "another key": lambda w: w.dict.update(c=w.dict.pop("b")),
    "a value in an ordered dictionary": lambda w: w.ordered.update(x=object()),
    "another order": lambda w: w.dict.update(a=w.dict.pop("a")),
    "a cleared dictionary": lambda w: w.dict.clear(),
    "one more name": lambda w: w.names.update(k=3),
    "another name": lambda w: w.names.update(k=w.names.pop("m")),
    "an entry": lambda w: w.entries.update(wanted=object()),
    "an entry that is gone": lambda w: w.entries.pop("wanted"),
    "a class": lambda w: setattr(w.typed, "__class__", Other),
    "a dictionary that is not empty": lambda w: w.empty[0].update(a=1),
    "an ordered one that is not empty": lambda w: w.empty[1].update(a=1),
    "a list that is not empty": lambda w: w.empty[2].append(1),
    "a set that is not empty": lambda w: w.empty[3].add(1),
    "a method": lambda w: setattr(w.kind, "method", lambda self: None),
}
UNSEEN: dict[str, Callable[[World], Any]] = {
    "nothing": lambda w: None,
    "the same value again": lambda w: w.dict.update(a=w.dict["a"]),
    "there and back": lambda w: [w.dict.update(z=1), w.dict.pop("z")],
    "the value of a name": lambda w: w.names.update(n=99),
    "another entry": lambda w: w.entries.update(free=1, more=2),
    "an attribute of what is typed": lambda w: setattr(w.typed, "one", object()),
    "another method": lambda w: setattr(w.kind, "another", lambda self: None),
}


@pytest.mark.parametrize("change", SEEN)
def test_it_is_seen(change: str) -> None:
    world = World()
    objects = world.look()
    assert objects.same()
    SEEN[change](world)
    assert not objects.same()
    assert not objects.same()


def test_a_dictionary_must_be_empty_whether_it_changed_or_not() -> None:
    filled = {"a": 1}
    objects = unchanged.look_at(empty=[{}, filled])
    assert objects is not None
    assert not objects.same()
    assert not objects.same()
    filled.clear()
    assert objects.same()


@pytest.mark.parametrize("change", UNSEEN)
def test_it_is_not(change: str) -> None:
    world = World()
    objects = world.look()
    for _ in range(3):
        UNSEEN[change](world)
        assert objects.same()
    SEEN["a value"](world)  # a change that comes after others is seen as well
    assert not objects.same()


def test_a_method_that_is_put_back_is_the_same_again() -> None:
    world = World()
    objects = world.look()
    world.kind.method = lambda self: None
    assert not objects.same()
    del world.kind.method
    assert objects.same()


def test_two_look_at_the_same_dictionary() -> None:
    world = World()
    first = world.look()
    world.dict["a"] = object()
    second = world.look()
    assert (first.same(), second.same()) == (False, True)
    del first
    gc.collect()
    assert second.same()
    world.dict["a"] = None
    assert not second.same()


def test_what_it_was_made_from_stays_alive_with_it() -> None:
    world = World()
    kept = weakref.ref(world.thing)
    objects = world.look()
    del world
    gc.collect()
    assert kept() is not None
    assert objects.same()
    del objects
    gc.collect()
    assert kept() is None


def test_circles_are_collected() -> None:
    world = World()
    world.thing.one = world.look()  # which holds the thing
    gone = weakref.ref(world.thing)
    del world
    gc.collect()
    assert gone() is None


def test_a_class_whose_attributes_raise_is_not_the_same() -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            if name == "method" and broken:
                raise RuntimeError("no such luck")
            return super().__getattribute__(name)

    broken: list[int] = []
    objects = unchanged.look_at(attributes=[(Meta("Odd", (Thing,), {}), "method")])
    assert objects is not None
    assert objects.same()
    broken.append(1)
    assert not objects.same()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"dicts": [[]]}, TypeError),
        ({"instances": [3]}, AttributeError),
        ({"entries": [({}, "a")]}, KeyError),
        ({"entries": [[{}, "a"]]}, TypeError),
        ({"entries": [([], "a")]}, TypeError),
        ({"attributes": [(Thing, "no")]}, AttributeError),
        ({"empty": 3}, TypeError),
    ],
)
def test_what_it_does_not_take(given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        unchanged.look_at(**given)


def _parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]


KINDS: dict[str, tuple[Callable[[list[Any]], Any], bool, bool]] = {
    # what is changed; whether tensors are of the same kinds then, and in the same memory
    "nothing": (lambda t: None, True, True),
    "numbers": (lambda t: t[0].data.zero_(), True, True),
    "memory": (lambda t: setattr(t[0], "data", t[0].data.clone()), True, False),
    "strides": (lambda t: setattr(t[0], "data", t[0].data.as_strided((3, 4), (1, 3))), True, False),
    "shape": (lambda t: setattr(t[0], "data", t[0].data.view(4, 3)), False, False),
    "dimensions": (lambda t: setattr(t[0], "data", t[0].data.view(12)), False, False),
    "fewer": (lambda t: setattr(t[1], "data", t[1].data[:2]), False, False),
    "dtype": (lambda t: setattr(t[1], "data", t[1].data.half()), False, False),
}


@pytest.mark.parametrize("change", KINDS)
def test_kinds_and_memory_of_tensors(change: str) -> None:
    tensors = _parameters()
    holder: Any = unchanged.hold(tensors)
    assert holder.same_kinds()
    assert holder.same_memory()
    apply, kinds, memory = KINDS[change]
    apply(tensors)
    assert holder.same_kinds() == kinds
    assert holder.same_memory() == memory


def test_sparse_tensors_are_of_a_kind() -> None:
    holder: Any = unchanged.hold([torch.eye(3).to_sparse()])
    assert holder.same_kinds()
    assert not holder.same_memory()


def test_tensors_are_freed_with_their_holder() -> None:
    tensors = _parameters()
    gone = weakref.ref(tensors[0])
    holder = unchanged.hold(tensors)
    del tensors
    assert gone() is not None
    del holder
    gc.collect()
    assert gone() is None
