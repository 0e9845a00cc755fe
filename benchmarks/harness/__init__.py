"""Measures a case, which becomes a row: problems, processes, turns, clocks, the machine and its
limits.
"""
