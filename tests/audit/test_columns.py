"""Numbers as people read them, and tables as Markdown and CSV."""

import csv
import io
import math

import polars as pl
import pytest

from jaxattr.audit.columns import Column, Table, radius, tabulate, with_ball

X = pl.col("x")


def cell(value, **options):
    """Format one number."""
    (text,) = Column("title", X, **options).cells(pl.DataFrame({"x": [value]}, schema={"x": pl.Float64}))
    return text


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (0.123456, {}, "0.123"),
        (1234.5, {}, "1.23e+03"),
        (0.123456, {"significant": 2}, "0.12"),
        (0.123456, {"digits": 1}, "0.1"),
        (12345.678, {"digits": 2}, "12,345.68"),
        (1234567.0, {"digits": 0}, "1,234,567"),
        (0.0, {"digits": 0}, "0"),
        (0.0, {}, "0"),
        (None, {"digits": 2}, ""),
        (math.nan, {"digits": 2}, ""),
        (None, {"brackets": True}, ""),
        (math.inf, {"digits": 2}, "inf"),
        # Nothing is less than nothing.
        (-0.001, {"digits": 2}, "0.00"),
        (-0.0, {"digits": 0}, "0"),
        (-0.006, {"digits": 2}, "-0.01"),
        (0.25, {"digits": 1, "unit": "%"}, "25.0"),
        (1.0, {"digits": 0, "unit": "%"}, "100"),
        (0.0, {"digits": 1, "unit": "%"}, "0.0"),
        (0.0004, {"digits": 1, "unit": "%"}, "<0.1"),
        (0.0004, {"digits": 0, "unit": "%"}, "<1"),
        (0.0006, {"digits": 1, "unit": "%"}, "0.1"),
        (0.0004, {"digits": 1}, "0.0"),
        (0.0123, {"unit": "%", "significant": 2}, "1.2"),
        (30.0, {"digits": 2, "unit": "degrees"}, "30.00"),
        (0.5, {"digits": 2, "brackets": True}, "(0.50)"),
        (0.0004, {"digits": 1, "unit": "%", "brackets": True}, "(<0.1)"),
    ],
)
def test_a_number_is_written_so(value, options, text):
    assert cell(value, **options) == text


def test_units_stand_in_the_head():
    assert [Column("share", X, unit=unit).head for unit in ("%", "degrees", "")] == [
        "share, %",
        "share, degrees",
        "share",
    ]


def test_a_column_is_named_by_its_expression():
    assert Column("Head", X).name == "x"
    assert Column("Head", (X + 1).alias("more")).name == "more"


def test_words_stand_where_there_is_no_number():
    lines = pl.DataFrame({"x": [0.5, None, math.nan], "why": ["not shown", "unbounded", None]})
    assert Column("a", X, 1, instead=pl.col("why")).cells(lines) == ["0.5", "unbounded", ""]
    assert Column("a", pl.col("why"), 1).cells(lines) == ["not shown", "unbounded", ""]


def test_a_column_that_lines_lack_is_empty():
    lines = pl.DataFrame({"y": [1.0, 2.0]})
    assert Column("a", X).cells(lines) == ["", ""]
    assert Column("a", X / pl.col("y")).values(lines).to_list() == [None, None]
    # A mistake in an expression is another matter.
    with pytest.raises(pl.exceptions.PolarsError):
        Column("a", pl.col("y").str.len_bytes()).cells(lines)


LINES = pl.DataFrame(
    {"model": ["a", "b, c"], "x": [0.5, 0.25], "none": [None, math.nan], "some": [None, 2.0]},
    schema_overrides={"none": pl.Float64},
)
KEY = Column("model", pl.col("model"))


def test_a_column_that_is_empty_in_every_line_is_left_out():
    columns = [
        Column("x", X, 2),
        Column("none", pl.col("none")),
        Column("some", pl.col("some"), 0),
        Column("no", pl.col("no")),
    ]
    table = tabulate("Title", LINES, [KEY], columns, "legend")
    assert table == Table("Title", ("model", "x", "some"), (("a", "0.50", ""), ("b, c", "0.25", "2")), 1, "legend")
    # What a line is of stays.
    assert tabulate("Title", LINES, [Column("none", pl.col("none"))], columns[:1]).head == ("none", "x")


def test_a_table_of_no_lines_has_no_rows():
    assert tabulate("Title", LINES.head(0), [KEY], [Column("x", X)]).rows == ()


def test_titles_may_repeat_in_markdown_and_csv():
    table = tabulate("Title", LINES, [KEY], [Column("by at most", X, 2), Column("by at most", 2 * X, 1, "%")])
    assert table.markdown().splitlines() == [
        "| model | by at most | by at most, % |",
        "| --- | --: | --: |",
        "| a | 0.50 | 100.0 |",
        "| b, c | 0.25 | 50.0 |",
    ]
    twice = Table("Title", ("model", "x", "x"), (("a", "1", "2"), ("b, c", '3"', "")), 1)
    assert list(csv.reader(io.StringIO(twice.csv()))) == [["model", "x", "x"], ["a", "1", "2"], ["b, c", '3"', ""]]


def test_columns_that_say_what_a_line_is_of_are_on_the_left():
    table = Table("Title", ("a", "b", "n"), (("x", "y", "1"),), 2)
    assert table.markdown().splitlines()[1] == "| --- | --- | --: |"


@pytest.mark.parametrize(
    ("epsilon", "words"),
    [(8 / 255, "8/255"), (0.5 / 255, "0.00196"), (0.1, "0.1"), (1.0, "1"), (0.2, "0.2"), (1e-4, "0.0001")],
)
def test_a_radius_is_written_as_people_do(epsilon, words):
    assert radius(epsilon) == words


def test_a_ball_is_a_norm_and_a_radius():
    lines = with_ball(pl.DataFrame({"norm": ["l2", "linf"], "epsilon": [0.1, 8 / 255]}))
    assert lines["ball"].to_list() == ["l2 0.1", "l-infinity 8/255"]
