"""Rows that wait."""

import numpy as np

from onnx_subprune.selection.linalg.panel import Panel


def test_rows_stay_as_they_came_however_many_there_are():
    data = np.random.default_rng(0).standard_normal((200, 5))
    panel = Panel(5)
    start = 0
    for size in (1, 0, 30, 9, 160):
        panel.append(data[start : start + size])
        start += size
        assert len(panel) == start
        assert np.array_equal(panel.rows, data[:start])
