"""Labels that are probably not what was meant, and the exact words about them."""

from __future__ import annotations

import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.classify.splits.label_checks import label_warnings, spelling
from headstart.classify.splits.splitting import check_groups
from headstart.data.common.errors import InputError


def test_labels_that_differ_only_in_spelling() -> None:
    classes = ("Cat", "cat", " cat", "dog", "hot  dog", "hot dog", "wolf")
    assert label_warnings(classes, np.array([12, 1300, 20, 50, 10, 11, 40])) == [
        "the classes 'Cat' (12), 'cat' (1,300) and ' cat' (20) differ only in case, white space or "
        "Unicode form. Give them one spelling if they are one class.",
        "the classes 'hot  dog' (10) and 'hot dog' (11) differ only in case, white space or "
        "Unicode form. Give them one spelling if they are one class.",
    ]


def test_labels_that_look_the_same_are_shown_as_escapes() -> None:
    one, two = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    assert label_warnings((one, two), np.array([10, 20])) == [
        "the classes 'caf\\xe9' (10) and 'cafe\\u0301' (20) differ only in case, white space or "
        "Unicode form. Give them one spelling if they are one class."
    ]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("STRASSE", "straße"),
        ("\u2460", "1"),
        ("a\u00a0b", "A B"),
        ("\u017ft", "\ufb06"),
        ("Ⅳ", "iv"),
    ],
)
def test_one_spelling(one: str, two: str) -> None:
    assert spelling(one) == spelling(two)


@given(st.text())
def test_spelling_is_the_same_in_every_form(label: str) -> None:
    expected = spelling(label)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert spelling(unicodedata.normalize(form, label)) == expected  # type: ignore[arg-type]
    assert spelling(label.casefold()) == spelling(f"  {label}\n") == expected


def test_classes_with_few_examples() -> None:
    assert label_warnings(("a", "b"), np.array([10, 9])) == [
        "1 class has fewer than 10 examples: 'b' (9). Its scores say little; add examples."
    ]
    counts = np.array([9, 8, 7, 6, 5, 4, 100])
    assert label_warnings(tuple("abcdefg"), counts) == [
        "6 classes have fewer than 10 examples: such as 'f' (4), 'e' (5), 'd' (6), 'c' (7) and "
        "'b' (8). Their scores say little; add examples."
    ]
    assert label_warnings(("a", "b"), np.array([10, 10])) == []


@pytest.mark.alone
def test_ten_thousand_classes_take_no_time() -> None:
    classes = tuple(f"{prefix}{number}" for number in range(5000) for prefix in "xX")
    start = time.monotonic()
    warnings = label_warnings(classes, np.full(10_000, 12))
    labels = np.arange(100_000) % 10_000
    with pytest.raises(InputError):
        check_groups(labels, labels[::-1])
    assert time.monotonic() - start < 2
    assert len(warnings) == 7
    assert warnings[5:] == [
        "4,995 more sets of classes differ only in this way.",
        "there are 10,000 classes, with 12.0 examples each on average. If the labels are ids, "
        "choose another column; if not, expect training to take long.",
    ]


def test_a_group_that_is_the_label_is_refused() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    with pytest.raises(InputError) as caught:
        check_groups(labels, np.array([5, 5, 3, 3, 4, 4]))
    assert str(caught.value) == (
        "the groups are the same as the labels: each of the 3 classes is one group, so no class "
        "can be both trained on and tested\n"
        "  A group holds examples of one origin, such as a module, a speaker or a patient. Name "
        "such a column, or no group, and extract again."
    )
    check_groups(labels, None)
    check_groups(labels, np.array([0, 1, 2, 3, 4, 4]))  # a class of several groups
    check_groups(labels, np.array([0, 0, 0, 1, 1, 1]))  # a group of several classes
