"""A network's pass on a GPU backend as the kernels that it calls, each already chosen.

What :mod:`effkernels.dispatch` chooses for each op depends on shapes, dtypes and devices alone, so it is recorded in
one pass, and later passes call the kernels without asking again. Between two kernels lies one turn of a loop.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effkernels import dispatch
from effkernels.ops._steps import LINEAR, NETWORK, Network, linear, run_for_maps, run_steps


class Launch(NamedTuple):
    """One call of a kernel.

    Attributes:
        op, backend: which kernel.
        run: takes what ``arguments`` gets from the pass's list of values.
        results: where in that list its results go; one of them is the result itself, several a tuple.
        done: which of the list nothing needs any more.
    """

    op: str
    backend: str
    run: Callable[..., Any]
    arguments: operator.itemgetter[Any]
    results: tuple[int, ...]
    done: tuple[int, ...]


class Launches:
    """The kernels of one network for inputs of one shape, dtype and device. For calls from several threads."""

    def __init__(
        self,
        launches: Sequence[Launch],
        constants: Sequence[Any],
        wanted: Sequence[int],
        network: Network,
    ) -> None:
        self.launches = tuple(launches)
        self._constants = list(constants)
        self._wanted = tuple(wanted)
        self._network = network
        final = network.steps[-1]
        self._linear = final.tensors if final.op == LINEAR else None

    def run(self, x: Tensor, tensors: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """The pass. ``tensors`` are those of the network, of the shapes and dtypes that were recorded."""
        found = self._before_linear(x, tensors)
        if self._network.maps:
            return found
        (y,) = found
        if self._linear is None:
            return y
        bias = self._linear.get("bias")
        with torch._C._AutoDispatchBelowAutograd():
            return linear(
                y, tensors[self._linear["weight"]], None if bias is None else tensors[bias]
            )

    def _before_linear(self, x: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The pass up to a linear step, if there is one: the results that were wanted of it."""
        matrices = self._network.matrices
        with torch._C._AutoDispatchBelowAutograd():
            values: list[Any] = [x, *tensors, *self._constants]
            for place in matrices:
                values[place + 1] = values[place + 1].flatten(1)
            for _, _, run, arguments, results, done in self.launches:
                if len(results) == 1:
                    values[results[0]] = run(*arguments(values))
                else:
                    made = run(*arguments(values))
                    for place, value in zip(results, made, strict=True):
                        values[place] = value
                    del made, value
                for place in done:
                    values[place] = None
            return [values[place] for place in self._wanted]


class _Call(NamedTuple):
    """A kernel's call. What it takes and makes are numbers of tensors, other arguments as they are."""

    decision: dispatch.Decision
    run: Callable[..., Any]
    arguments: tuple[_Number | Any, ...]
    results: tuple[_Number, ...]


class _Number(int):
    """Stands for a tensor: x is 0, then come the network's tensors, then what kernels make."""


class Recording:
    """Notes which kernels :mod:`effkernels.dispatch` chooses, what they take and what they make."""

    def __init__(self) -> None:
        self.network_decision: dispatch.Decision | None = None
        self._calls: list[_Call] = []
        # By identity, of tensors that are alive: the pass must not need more memory for being noted.
        self._seen: dict[int, tuple[weakref.ref[Tensor], _Number]] = {}
        self._count = 0
        self._complete = True

    def declined(self, op: str, reason: str) -> None:
        """See :class:`effkernels.dispatch.Watcher`."""

    def chosen(
        self, decision: dispatch.Decision, run: Callable[..., Any] | None
    ) -> Callable[..., Any] | None:
        """See :class:`effkernels.dispatch.Watcher`."""
        if decision.op == NETWORK:
            self.network_decision = decision
        if run is None or decision.op == NETWORK or decision.run_by_parts:
            return run
        kernel = run

        def noted(*arguments: Any) -> Any:
            taken = tuple(self._number_of(a) if isinstance(a, Tensor) else a for a in arguments)
            made = kernel(*arguments)
            results = tuple(map(self._see, made if isinstance(made, tuple) else (made,)))
            self._calls.append(_Call(decision, kernel, taken, results))
            return made

        return noted

    def _see(self, tensor: Tensor) -> _Number:
        number = _Number(self._count)
        self._seen[id(tensor)] = weakref.ref(tensor), number
        self._count += 1
        return number

    def _number_of(self, tensor: Tensor) -> _Number:
        known = self._seen.get(id(tensor))
        if known is None or known[0]() is not tensor:
            self._complete = False  # something else than a kernel made it
            return _Number(0)
        return known[1]

    def run(
        self, x: Tensor, tensors: Sequence[Tensor], network: Network
    ) -> tuple[Any, Launches | None]:
        """The pass, step by step, and its kernels; None where more than kernels computed."""
        body = network.steps[:-1] if network.steps[-1].op == LINEAR else network.steps
        wanted = network.maps or (len(body) - 1,)
        tensors = network.with_matrices(tensors)
        own = tensors
        if len(set(map(id, tensors))) < len(tensors):
            # Tied tensors, which may be untied later: the places that they are taken from must be told apart.
            own = [t.view_as(t) for t in tensors]
        for tensor in (x, *own):
            self._see(tensor)
        found = run_for_maps(x, own, Network(body, network.matrices, wanted))
        numbers = [self._number_of(found[i]) for i in wanted]
        launches = self._launches(numbers, network, len(own) + 1) if self._complete else None
        if network.maps:
            return [found[i] for i in wanted], launches
        return run_steps(found[wanted[0]], tensors, network.steps[len(body) :]), launches

    def _launches(self, wanted: list[_Number], network: Network, given: int) -> Launches:
        """The calls with places in one list for all that they take and make, used again as soon as they can be."""
        last_use = {
            n: i for i, c in enumerate(self._calls) for n in c.arguments if type(n) is _Number
        }
        last_use |= dict.fromkeys(wanted, len(self._calls))
        places = {_Number(i): i for i in range(given)}
        constants: list[Any] = []
        free: list[int] = []
        launches = []
        for i, call in enumerate(self._calls):
            taken = []
            for argument in call.arguments:
                if type(argument) is _Number:
                    taken.append(places[argument])
                else:
                    taken.append(given + len(constants))
                    constants.append(argument)
            for number in call.results:
                if not free:
                    free.append(given + len(constants))
                    constants.append(None)
                places[number] = free.pop()
            results = tuple(places[n] for n in call.results)
            ended = [n for n in places if last_use.get(n, 0) <= i and (n == 0 or n >= given)]
            done = tuple(places.pop(n) for n in ended)
            free += [place for place in done if place]
            op, backend, get = call.decision.op, call.decision.backend, operator.itemgetter(*taken)
            launches.append(Launch(op, backend, call.run, get, results, done))
        return Launches(launches, constants, [places[n] for n in wanted], network)
