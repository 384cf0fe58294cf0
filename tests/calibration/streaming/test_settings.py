"""How much of large maps and of many samples is looked at."""

import pytest

from onnx_subprune.calibration.streaming.settings import ENOUGH_POSITIONS, ENOUGH_ROWS, ENOUGH_SAMPLES, Running


@pytest.mark.parametrize(
    ("samples", "positions", "columns", "every"),
    [
        (512, 1024, 144, 4),
        (512, 64, 576, 1),
        (256, 3136, 576, 2),
        (256, 196, 2304, 1),
        (1024, 1, 64, 1),
        (1024, 0, 64, 1),
        (2560, 64, 180, 5),
        (4096, 196, 256, 24),
    ],
)
def test_some_samples_of_large_maps_are_enough(samples, positions, columns, every):
    assert Running().every_of(samples, positions, columns) == every
    assert samples // every >= ENOUGH_SAMPLES
    assert every == 1 or samples // every * positions >= max(ENOUGH_ROWS * columns, ENOUGH_POSITIONS)


def test_whoever_asks_for_positions_gets_them_of_all_samples():
    assert Running(positions=16).every_of(4096, 3136, 64) == 1
