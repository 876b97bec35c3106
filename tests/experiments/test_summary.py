"""Every kind of number in the tables, worked out by hand from four samples."""

import math

import polars as pl
import pytest

from experiments import table
from experiments.comparison import violations
from experiments.rows import SCHEMA
from experiments.summary import per_sample, summarize

# Bound, corrected bound, attribution norm and remainder of the samples.
SAMPLES = [
    {"euclidean": 1.0, "corrected": 1.5, "attribution_norm": 2.0, "remainder": 0.01, "vacuous": False, "degrees": 30.0},
    {"euclidean": 2.0, "corrected": 2.0, "attribution_norm": 4.0, "remainder": 0.50, "vacuous": False, "degrees": 30.0},
    {"euclidean": 3.0, "corrected": 3.0, "attribution_norm": 1.0, "remainder": 0.01, "vacuous": True, "degrees": 180.0},
    {"euclidean": 4.0, "corrected": 4.0, "attribution_norm": 8.0, "remainder": 0.02, "vacuous": False, "degrees": 60.0},
]
# Deviations of PGD from two starts, of IFIA, and of the bound's direction.
ATTACKS = [
    {"pgd": (0.2, 0.4), "ifia": (0.5,), "worst_direction": (1.25,)},
    {"pgd": (1.0, 3.0), "ifia": (0.1,), "worst_direction": (1.9,)},
    {"pgd": (1.0, 1.0), "ifia": (2.0,), "worst_direction": (2.5,)},
    {"pgd": (0.0, 0.2), "ifia": (0.1,), "worst_direction": (3.6,)},
]


@pytest.fixture
def rows():
    found = []
    key = {"config": "c", "weights": "w", "model": "natural", "attribution": "saliency", "norm": "l2", "epsilon": 0.1}
    for position, (bound, attacks) in enumerate(zip(SAMPLES, ATTACKS, strict=True)):
        place = {**key, "position": position, "sample": position, "label": 0}
        found.append(
            {
                **place,
                **bound,
                "kind": "bound",
                "method": "singular_value",
                "active": "singular_value",
                "main": True,
                "keeps_plus": position > 0,
                "keeps_minus": position < 2,
                "constant": bound["corrected"] / bound["euclidean"],
            }
        )
        for method, deviations in attacks.items():
            for restart, value in enumerate(deviations):
                found.append(
                    {
                        **place,
                        "kind": "attack",
                        "method": method,
                        "restart": restart,
                        "euclidean": value,
                        "degrees": 10 * value,
                        "kendall": 0.25 * position,
                        "top_k": 0.5,
                        "label_kept": method != "pgd",
                        "seconds": 0.3,
                    }
                )
    return pl.DataFrame(found, schema=SCHEMA)


@pytest.fixture
def line(rows):
    summary = summarize(rows, small_remainder=0.05)
    assert len(summary) == 1
    return summary.to_dicts()[0]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("n", 4),
        ("bound", 2.5),
        ("corrected", 10.5 / 4),
        ("paper", (0.3 + 2.0 + 1.0 + 0.1) / 4),  # means over the starts of PGD
        ("ifia", 2.7 / 4),
        ("strongest", (1.25 + 3.0 + 2.5 + 3.6) / 4),
        ("used", (1.25 + 1.5 + 2.5 / 3 + 0.9) / 4),
        # T'_e minus the mean of PGD, and minus the strongest, at the worst sample.
        ("r", 0.0),
        ("r_strongest", -1.0),
        ("vacuous", 0.25),
        ("bound_degrees", 40.0),
        ("bound_degrees_all", 75.0),
        ("kendall", (0 + 0.25 + 0.5 + 0.75) / 4),
        ("kept_pgd", 0.0),
        ("kept_ifia", 1.0),
        ("attacks", 16),
        ("outside", 2 / 16),  # 1.25 over 1, and 3 over 2
        ("outside_excess", 0.5),
        ("outside_samples", 2),
        ("outside_within", 1),  # 0.25 over a remainder of 0.01, and 0.5 at 0.5
        ("outside_remainder", (0.01 + 0.5) / 2),
        ("outside_corrected", 1 / 16),
        ("outside_corrected_excess", 0.5),
        ("small_n", 3),
        ("small_outside_count", 1),
        ("small_outside_excess", 0.25),
        ("small_outside_corrected_count", 0),
        ("keeps_plus", 0.75),
        ("keeps_minus", 0.5),
        ("keeps_either", 1.0),
        ("constant", (1.5 + 3) / 4),
        # Of the three samples whose bound is not vacuous.
        ("kendall_bounded", (0 + 0.25 + 0.75) / 3),
        ("paper_degrees_bounded", 10 * (0.3 + 2.0 + 0.1) / 3),
        # Two starts of PGD and one of IFIA share what four rows have; the bound's own point took no time.
        ("attack_seconds", 4 * 0.3 / 3),
        ("attacks_not_finite", 0),
    ],
)
def test_columns_by_hand(line, column, expected):
    assert line[column] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_one_line_per_sample_for_the_scatter(rows):
    samples = per_sample(rows).sort("position")
    assert samples["strongest"].to_list() == pytest.approx([1.25, 3.0, 2.5, 3.6])
    assert samples["euclidean"].to_list() == pytest.approx([1.0, 2.0, 3.0, 4.0])


def test_the_markdown_says_what_the_summary_says(rows):
    text = table.markdown(summarize(rows, 0.05), 0.05)
    lines = [line for line in text.splitlines() if line.startswith("| natural | l2 0.1 | saliency |")]
    assert len(lines) == len(table.TABLES)
    assert lines[0].split("|")[4].strip() == "4"
    assert "25.0 %" in lines[1]
    assert "12.5 %" in lines[2]
    assert "below 5 %" in text


def test_a_nan_is_no_number_in_a_mean(rows):
    damaged = rows.with_columns(
        degrees=pl.when(pl.col("kind") == "bound", pl.col("position") == 0)
        .then(pl.lit(math.nan, pl.Float32))
        .otherwise("degrees")
    )
    line = summarize(damaged, 0.05).to_dicts()[0]
    assert line["bound_degrees"] == pytest.approx(45.0)


def test_attacks_without_a_number_are_counted(rows):
    lost = pl.when(pl.col("method") == "ifia", pl.col("position") < 2)
    damaged = rows.with_columns(euclidean=lost.then(pl.lit(math.nan, pl.Float32)).otherwise("euclidean"))
    line = summarize(damaged, 0.05)
    assert line.select("attacks", "attacks_not_finite").rows() == [(16, 2)]
    assert "2 of the attacks came to no finite number" in violations(line)[0]
