"""Attacks that went beyond a bound are counted in words and lines."""

import pytest
from small_papers import PAPER, lines, record

from experiments.papers.wang2023.violations import violations

COUNTS = {
    "attacks": [1000] * 6,
    "outside_count": [0, 3, 0, 0, 0, 1],
    "outside_within": [0, 1, 0, 0, 0, 1],
    "outside_samples": [0, 2, 0, 0, 0, 1],
    "outside_excess": [None, 0.5, None, None, None, 0.012],
    "outside_remainder": [0.1] * 6,
    "remainder_median": [0.05] * 6,
    "outside_corrected_count": [0, 1, 0, 0, 0, 0],
    "outside_corrected_samples": [0, 1, 0, 0, 0, 0],
    "outside_corrected_excess": [None, 0.25, None, None, None, None],
}


@pytest.mark.parametrize("lost", [0, 2])
def test_totals_are_said_and_lines_without_any_are_left_out(lost):
    (block,) = violations(PAPER, record(lines(**COUNTS, attacks_not_finite=[lost, 0, 0, 0, 0, 0])))
    assert "Of 6,000 attacks of all kinds and radii 4 went beyond T_e and 1 beyond T'_e" in block.text
    assert "2 of the 4 exceed T_e by no more" in block.text
    # An attack without a number was not seen to stay within the bound.
    assert ("2 of the attacks came to no finite number" in block.text) == (lost == 2)
    assert block.table is not None
    first = block.table.head.index("outside T_e")
    assert [row[first : first + 3] for row in block.table.rows] == [
        ("3 of 1000", "2 of 7", "50"),
        ("1 of 1000", "1 of 7", "1.2"),
    ]
