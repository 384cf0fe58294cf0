"""How much of large maps and of many samples is looked at."""

import pytest

from onnx_subprune.calibration.running import DRAFT_POSITIONS, DRAFT_ROWS, DRAFTED, Running


@pytest.mark.parametrize(
    ("samples", "positions", "columns", "every"),
    [
        (512, 1024, 144, 8),
        (512, 64, 576, 1),
        (256, 3136, 576, 4),
        (256, 196, 2304, 1),
        (1024, 1, 64, 1),
        (1024, 0, 64, 1),
        (2560, 64, 180, 5),
        (4096, 196, 256, 24),
    ],
)
def test_drafts_look_at_large_maps_of_many_samples_in_part(samples, positions, columns, every):
    assert Running().every_of(samples, positions, columns) == every
    assert samples // every >= DRAFTED
    assert every == 1 or samples // every * positions >= max(DRAFT_ROWS * columns, DRAFT_POSITIONS)


def test_whoever_asks_for_positions_gets_them_of_all_samples():
    assert Running(positions=16).every_of(4096, 3136, 64) == 1
