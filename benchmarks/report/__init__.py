"""A report: its rows as data, as tables and as pictures, and what moved since another. Run as ``benchmarks.run``."""
