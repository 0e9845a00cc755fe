"""A report as data, as tables and as plots, and how it differs from another one. Run as ``benchmarks.run``."""
