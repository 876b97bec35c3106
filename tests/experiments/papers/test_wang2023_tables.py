"""The numbers that Wang and Kong 2023 print, and which rows each of their tables is of."""

import polars as pl
import pytest
from small_papers import PAPER

KEYS = ["dataset", "norm", "epsilon", "attribution", "model"]


def test_published_tables_are_whole():
    shapes = {number: len(PAPER.published(number)) for number in PAPER.tables}
    # 3 attributions x 2 norms; 6 models x 3 data sets; and x 3 radii x 2 norms.
    assert shapes == {"2": 6, "3": 18, "4": 18, "5": 108}
    for number in PAPER.tables:
        values = PAPER.published(number)
        assert values.select(KEYS).is_unique().all()
        assert values.drop("corrected", strict=False).null_count().sum_horizontal().item() == 0
    with pytest.raises(ValueError, match="the table is '1'; Wang and Kong 2023 has results in 2, 3, 4, 5"):
        PAPER.published("1")


@pytest.mark.parametrize(
    ("number", "dataset", "norm", "epsilon", "model", "column", "value"),
    [
        ("2", "cifar10", "linf", 0.1, "trades_igr", "bound_degrees", [27.09, 50.59, 35.0]),
        ("3", "mnist", "l2", 0.05, "trades_igr", "paper_outside", [0.0132]),
        ("3", "fashion_mnist", "l2", 0.05, "art", "corrected", [0.1411]),
        ("4", "cifar10", "linf", 0.1, "adv_aat", "kendall", [0.5484]),
        ("5", "mnist", "linf", 0.03, "art", "r", [0.0112]),
        ("5", "cifar10", "linf", 8 / 255, "ig_norm", "r", [0.0145]),
    ],
)
def test_published_numbers_are_those_of_the_paper(number, dataset, norm, epsilon, model, column, value):
    lines = PAPER.published(number).filter(dataset=dataset, norm=norm, model=model)
    assert lines.filter((pl.col("epsilon") - epsilon).abs() < 1e-9)[column].to_list() == value


@pytest.mark.parametrize("number", list(PAPER.tables))
def test_what_a_table_prints_is_what_it_is_of(number):
    """Attributions, norms and models of the printed numbers are those whose rows are computed."""
    needs, printed = PAPER.tables[number].of, PAPER.published(number)
    assert set(printed["attribution"]) == set(needs.attributions)
    assert set(printed["norm"]) == set(needs.norms)
    assert set(printed["model"]) == set(needs.models or PAPER.models)
