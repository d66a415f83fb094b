"""Interpolation between templates: a cubic spline as weights of the templates, the same for all bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from binworks.tensors.histogram import Float64


class Spline:
    """Cubic spline through values at nodes, exact there; a parabola beyond the outermost ones.

    Parameters
    ----------
    nodes : sequence of float
        Strictly increasing, four at least.

    Raises
    ------
    ValueError
        If there are fewer, or if they do not increase.
    """

    def __init__(self, nodes: Sequence[float]) -> None:
        self.nodes = np.asarray(nodes, float)
        h = np.diff(self.nodes)
        if len(self.nodes) < 4 or np.any(h <= 0):
            raise ValueError(f"a spline needs four increasing nodes or more, not {list(nodes)}")
        count = len(self.nodes)
        left, right = np.zeros((count, count)), np.zeros((count, count))
        for i in range(1, count - 1):
            left[i, i - 1 : i + 2] = h[i - 1] / 6, (h[i - 1] + h[i]) / 3, h[i] / 6
            right[i, i - 1 : i + 2] = 1 / h[i - 1], -1 / h[i - 1] - 1 / h[i], 1 / h[i]
        # not-a-knot: the third derivative is continuous at the second node and at the last but one
        left[0, :3] = h[1], -h[0] - h[1], h[0]
        left[-1, -3:] = h[-1], -h[-2] - h[-1], h[-2]
        self._curvature = np.linalg.solve(left, right)

    def weights(self, x: float) -> tuple[Float64, Float64]:
        """Return what the values at the nodes weigh in the spline and in its derivative at x, shapes (nodes,)."""
        nodes, unit = self.nodes, np.eye(len(self.nodes))
        inside = min(max(x, nodes[0]), nodes[-1])
        i = min(int(np.searchsorted(nodes, inside, side="right")) - 1, len(nodes) - 2)
        h = nodes[i + 1] - nodes[i]
        a, b = (nodes[i + 1] - inside) / h, (inside - nodes[i]) / h
        low, high = self._curvature[i], self._curvature[i + 1]
        value = a * unit[i] + b * unit[i + 1] + ((a**3 - a) * low + (b**3 - b) * high) * h**2 / 6
        slope = (unit[i + 1] - unit[i]) / h + ((1 - 3 * a**2) * low + (3 * b**2 - 1) * high) * h / 6
        bend, beyond = a * low + b * high, x - inside
        return value + beyond * slope + beyond**2 / 2 * bend, slope + beyond * bend
