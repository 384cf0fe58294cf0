"""How much of large maps and of many samples is looked at."""

import pytest

from onnx_subprune.calibration.running import ROWS, SEEN, Running


@pytest.mark.parametrize(
    ("samples", "positions", "columns", "every"),
    [
        (512, 1024, 144, 2),
        (512, 64, 576, 1),
        (256, 3136, 576, 1),
        (1024, 3136, 64, 4),
        (1024, 1, 64, 1),
        (4096, 196, 256, 16),
    ],
)
def test_large_maps_of_many_samples_are_looked_at_in_part(samples, positions, columns, every):
    assert Running().every_of(samples, positions, columns) == every
    assert samples // every >= SEEN
    assert every == 1 or samples // every * positions >= ROWS * columns


def test_whoever_asks_for_positions_gets_them_of_all_samples():
    assert Running(positions=16).every_of(4096, 3136, 64) == 1
