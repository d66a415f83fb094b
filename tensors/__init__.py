"""The heart: axes, variation groups, accumulators and their ordered sums, expansion into nuisances, the fit.

Light by design: only the files that hold kernels (``kernels.py``, ``groups/``) import numba.
"""
