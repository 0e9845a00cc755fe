"""The triton backend's kernels and launchers: one file per op, imported when one of them first runs.

Each function takes the arguments of its op's schema, as `effkernels._triton` registers it. Maps are NHWC
inside; sums, BatchNorm, pooled values and gates are float32.
"""
