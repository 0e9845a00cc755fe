"""What each op is tested and measured with: one module for each module of ``effkernels.ops``, of the same name.

A module holds the op's cases: a frozen dataclass of plain numbers (:class:`specs.case.Case`) that makes the arguments
of a call and knows what the tests and the benchmarks have to know of it: how large its sums are, the least bytes and
multiply-adds, the same result as separate PyTorch calls. Beside it:

    SAMPLES    small valid calls over the corners of the contract, by label
    EDGES      shapes at the edges of tiles, chunks, vectors and images, by name
    generate   draws a case of any shape (see :mod:`specs.drawing` and :mod:`specs.generators`)

The repository root must come after everything else on ``sys.path``: it holds the package's source without its
compiled modules. Tests add it at the end in their ``conftest.py``, benchmarks in ``benchmarks/__init__.py``.
"""
