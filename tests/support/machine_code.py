"""Machine code of GPUs as cuobjdump prints it: how many instructions a way around a loop takes."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(.*?);")
_JUMP = re.compile(r"(@\S+ )?(BRA\S*)\s(.*?)0x([0-9a-f]+)\s*$")


class Code(NamedTuple):
    """A kernel's instructions, and of each that jumps the place in this list, and whether it may go on instead."""

    name: str
    instructions: list[str]
    jumps: dict[int, tuple[int, bool]]

    def loops(self) -> Iterator[tuple[int, int]]:
        """Places of the first and the last instruction of each loop."""
        return ((to, i) for i, (to, _) in self.jumps.items() if to < i)

    def after(self, i: int) -> list[int]:
        """Which instructions may come after one."""
        if i in self.jumps:
            to, conditional = self.jumps[i]
            if conditional:
                return [to, i + 1]
            return [] if to == i else [to]  # code ends with a jump to itself
        return [] if self.instructions[i].startswith(("EXIT", "RET")) else [i + 1]


def kernels(sass: str) -> Iterator[Code]:
    """Of the output of ``cuobjdump -sass``."""
    for function in sass.split("Function : ")[1:]:
        found = [(int(at, 16), text.strip()) for at, text in _INSTRUCTION.findall(function)]
        places = {at: i for i, (at, _) in enumerate(found)}
        jumps = {}
        for i, (_, text) in enumerate(found):
            jump = _JUMP.match(text)
            if jump is not None and int(jump[4], 16) in places:
                conditional = bool(jump[1]) or "P" in jump[3] or "DIV" in jump[2]
                jumps[i] = places[int(jump[4], 16)], conditional
        yield Code(function.split()[0], [text for _, text in found], jumps)


def shortest_round(code: Code, passing: Mapping[str, int]) -> int:
    """The fewest instructions of one pass through a loop that runs the named ones exactly so many times.

    Any path through the code counts, whether or not a condition allows it.

    Raises:
        ValueError: no loop has such a path.
    """
    rounds = [_shortest(code, first, last, passing) for first, last in code.loops()]
    return min(filter(None, rounds))


def _shortest(code: Code, first: int, last: int, passing: Mapping[str, int]) -> int | None:
    names, all_of_them = tuple(passing), tuple(passing.values())

    def run(start: int) -> tuple[int, tuple[int, ...], int]:
        """From an instruction to the next at which ways part or the loop ends: that, and what was passed."""
        counts = [0] * len(names)
        i, length = start, 1
        while True:
            for n, name in enumerate(names):
                counts[n] += name in code.instructions[i]
            if i == last or len(code.after(i)) != 1:
                return i, tuple(counts), length
            i, length = code.after(i)[0], length + 1

    best: dict[tuple[int, tuple[int, ...]], int] = {}
    waiting = [(0, first, (0,) * len(names))]
    while waiting:
        length, start, passed = heapq.heappop(waiting)
        end, counts, more = run(start)
        now = tuple(a + b for a, b in zip(passed, counts, strict=True))
        if any(a > b for a, b in zip(now, all_of_them, strict=True)):
            continue
        if end == last:
            if now == all_of_them:
                return length + more
            continue
        for following in code.after(end):
            key = following, now
            if length + more < best.get(key, 1 << 30):
                best[key] = length + more
                heapq.heappush(waiting, (length + more, following, now))
    return None
