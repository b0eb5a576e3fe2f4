"""Where the network looked, drawn over the crop."""

from __future__ import annotations

import numpy as np
import pytest

from str_app.reading_picture import attention_overlay


@pytest.mark.parametrize("covered", [1.0, 0.5])
@pytest.mark.parametrize("rotation", [0, 90])
def test_the_brightest_place_is_where_the_network_looked(covered: float, rotation: int) -> None:
    attention = np.zeros((4, 20), np.float32)
    attention[1, 5] = 1.0  # the middle of a quarter from the left, of the canvas
    crop = np.full((40, 100, 3) if rotation == 0 else (100, 40, 3), 120, np.uint8)
    shown = attention_overlay(crop, attention, covered, rotation)
    assert shown.shape == (40, 100, 3)
    columns = shown[:, :, 0].astype(int).sum(axis=0)
    assert np.argmax(columns) == pytest.approx(5.5 / 20 / covered * 100, abs=3)
