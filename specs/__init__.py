"""The calls with which each op is tested and measured: one module for each module of ``effkernels.ops``.

A module defines the op's cases: a frozen dataclass of plain numbers (:class:`specs.case.Case`) that makes the
arguments of a call and knows what tests and benchmarks need: the size of its sums, the minimum bytes and
multiply-adds, and the same computation as separate PyTorch calls. It also has:

        SAMPLES    small valid calls that cover every kind of argument, by label
        EDGES      shapes at the edges of tiles, chunks, vectors and images, by name
        generate   draws a case of any shape (see :mod:`specs.drawing` and :mod:`specs.generators`)

The repository root must come last on ``sys.path``, because it contains the package's source without its compiled
modules. Tests append it in their ``conftest.py``, benchmarks in ``benchmarks/__init__.py``.
"""
