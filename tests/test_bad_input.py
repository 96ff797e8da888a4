from __future__ import annotations

import numpy as np
import pytest
from odd_files import broken, cuts, whole

from data.decoding import DecodeError, decode
from data.preprocessing import Preprocessing

WHOLE, BROKEN, CUTS = whole(), broken(), cuts()


@pytest.mark.parametrize("name", WHOLE)
def test_odd_photographs_show_the_right_picture(name: str) -> None:
    case = WHOLE[name]
    height, width = case.picture.shape[:2]
    got = decode(case.content, Preprocessing(height, width))
    assert (got.shape, got.dtype) == (case.picture.shape, np.uint8)
    assert np.abs(got.astype(int) - case.picture).max() <= case.tolerance


@pytest.mark.parametrize("name", [*BROKEN, *CUTS])
def test_broken_ones_have_a_reason(name: str) -> None:
    content, reason = (BROKEN | CUTS)[name]
    got = None
    try:
        decode(content, Preprocessing(8, 8))
    except DecodeError as error:
        got = error.reason
    assert got == reason
