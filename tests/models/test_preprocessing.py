"""The canvas keeps the aspect ratio and says how many columns the crop covers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from str_app.models.preprocessing import Preprocessing


@given(st.integers(1, 200), st.integers(1, 600), st.sampled_from(["pad", "stretch"]))
def test_any_size_lands_on_the_one_canvas(height, width, fit):
    preprocessing = Preprocessing(fit=fit)
    canvas, covered = preprocessing(np.full((height, width, 3), 77, dtype=np.uint8))
    assert canvas.shape == (32, preprocessing.canvas_width(covered), 3)
    assert canvas.shape[1] in preprocessing.widths
    assert canvas.dtype == np.uint8
    assert 4 <= covered <= 128
    assert (canvas == 77).all()


@pytest.mark.parametrize(
    ("size", "covered"),
    [((32, 90), 90), ((64, 180), 90), ((32, 80), 80), ((32, 400), 128), ((32, 20), 40), ((10, 10), 51), ((500, 1), 4)],
)
def test_covered_width_follows_the_aspect_ratio_and_narrow_crops_are_widened(size, covered):
    assert Preprocessing()(np.zeros((*size, 3), dtype=np.uint8))[1] == covered


@pytest.mark.parametrize(("size", "covered"), [((32, 40), 40), ((64, 80), 40), ((10, 10), 32), ((50, 1), 4)])
def test_without_widening_the_aspect_ratio_is_kept(size, covered):
    assert Preprocessing(widen_below=0)(np.zeros((*size, 3), dtype=np.uint8))[1] == covered


def test_padding_repeats_the_last_column():
    image = np.zeros((32, 40, 3), dtype=np.uint8)
    image[:, -1] = 200
    canvas, _ = Preprocessing(widen_below=0)(image)
    assert (canvas[:, 39:] == 200).all()
    assert (canvas[:, :39] == 0).all()


@pytest.mark.parametrize("image", [np.zeros((0, 5, 3), np.uint8), np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3))])
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        Preprocessing()(image)


@pytest.mark.parametrize(("covered", "width"), [(4, 48), (48, 48), (49, 64), (96, 96), (97, 128), (128, 128)])
def test_the_narrowest_canvas_that_holds_the_crop(covered, width):
    assert Preprocessing().canvas_width(covered) == width
    assert Preprocessing().width == 128


@pytest.mark.parametrize("turned", [False, True])
def test_thin_strokes_are_kept_where_only_one_side_shrinks(turned):
    """A quarter of the columns, or rows, is white: every pixel of the canvas has its share of them."""
    image = np.zeros((32, 512, 3), dtype=np.uint8)
    image[:, ::4] = 200
    canvas, _ = Preprocessing()(np.rot90(image)[:, :8].copy() if turned else image)
    assert (abs(canvas[1:-1, 1:-1].astype(int) - 50) <= 2).all()
