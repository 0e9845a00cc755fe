"""Imports point one way: no module of the package imports from a higher layer, and no imports form a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import effkernels

PACKAGE = Path(effkernels.__file__).parent

# From the lowest layer up. Modules in one row may import each other and all lower layers.
LAYERS = (
    ("dispatch", "launch_timing", "unchanged"),
    ("reference",),
    ("ops",),
    ("nn",),
    ("models", "checkpoints", "analysis", "preprocessing", "data"),
    ("explaining", "graphs", "profiling", "scaling", "timing"),
    ("train", "choosing"),
    ("studies",),
    ("cli",),
)
RANKS = {part: rank for rank, row in enumerate(LAYERS) for part in row}
# The backends are outside of the layers: they implement what `ops` declares, and no layer imports them.
BACKENDS = "_backends"
BELOW_BACKENDS = ("dispatch", "launch_timing", "unchanged", "reference", "ops")
ABOVE_BACKENDS = ("__init__", "cli")
# Imports that have to point upward, with the reason.
ALLOWED: dict[tuple[str, str], str] = {}


def name_of(file: Path) -> str:
    """The name of a module, such as "effkernels.ops.mbconv"; for an ``__init__`` file that of its package."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in PACKAGE.rglob("*.py")}


def imported(tree: ast.AST, known: frozenset[str]) -> Iterator[tuple[str, bool]]:
    """The modules of ``known`` that this source imports; and whether that happens when the module itself is
    imported.

    Imports under ``if TYPE_CHECKING`` never happen at run time, but count as imports of a layer.
    """

    def visit(node: ast.AST, now: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in known:
                    yield alias.name, now
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known or node.module in known:
                    yield (inner if inner in known else str(node.module)), now
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        checking = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.iter_child_nodes(node):
            yield from visit(child, now and not inside and not checking)

    yield from visit(tree, True)


def part_of(module: str) -> str:
    """The part of the package that a module belongs to: "ops" for "effkernels.ops.mbconv"."""
    _, _, inner = module.partition(".")
    return inner.partition(".")[0] or "__init__"


def points_upward(importer: str, target: str) -> bool:
    """Whether ``importer`` may not import ``target``."""
    here, there = part_of(importer), part_of(target)
    if here == there or here == "__init__":
        return False
    if there == "__init__":
        return here not in ("cli", "__init__")
    if there == BACKENDS:
        return here not in ABOVE_BACKENDS
    if here == BACKENDS:
        return there not in BELOW_BACKENDS
    return RANKS[there] > RANKS[here]


def upward(imports: dict[str, list[tuple[str, bool]]]) -> set[tuple[str, str]]:
    return {
        (importer, target)
        for importer, targets in imports.items()
        for target, _ in targets
        if points_upward(importer, target)
    }


def circle(imports: dict[str, list[tuple[str, bool]]]) -> list[str] | None:
    """Modules that import each other while they are imported, with the first one again at the end; or None.

    Importing a module also runs its package's ``__init__``. That is not counted: `effkernels.ops` imports
    `effkernels.ops.mbconv`, which may import its siblings by name, but no name from `effkernels.ops`.
    """
    finished: set[str] = set()

    def follow(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return None
        for target, now in imports[module]:
            if now and (found := follow(target, [*path, module])):
                return found
        finished.add(module)
        return None

    for module in sorted(imports):
        if found := follow(module, []):
            return found
    return None


IMPORTS = {
    name: list(imported(ast.parse(file.read_text()), frozenset(FILES)))
    for name, file in FILES.items()
}


def test_every_part_has_its_layer() -> None:
    parts = {part_of(module) for module in FILES} - {"__init__", BACKENDS}
    assert parts <= set(RANKS), "give it a place in LAYERS"


def test_nothing_imports_from_a_higher_layer() -> None:
    assert sum(map(len, IMPORTS.values())) > 500
    found = upward(IMPORTS)
    assert sorted(found - set(ALLOWED)) == []
    assert sorted(set(ALLOWED) - found) == [], "these need no allowance any more"


def test_no_imports_form_a_circle() -> None:
    assert circle(IMPORTS) is None
