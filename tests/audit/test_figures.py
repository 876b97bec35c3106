"""Pictures show the samples that they are of."""

import math

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from jaxattr.audit import figures


def samples(models=("a", "b"), norms=("linf", "l2")):
    """Return five samples of each model, ball and attribution; of the first one no attack moved the map."""
    lines = [
        {"model": model, "norm": norm, "epsilon": 0.1, "attribution": "input_x_gradient", "position": i,
         "euclidean": 1.0 + i, "strongest": 0.5 * i}
        for model in models for norm in norms for i in range(5)
    ]  # fmt: skip
    return pl.DataFrame(lines)


def shown(figure):
    return [axis for axis in figure.axes if axis.axison]


def test_bounds_stand_against_attacks_sample_by_sample():
    figure = figures.scatter(samples(), "Bound against attack")
    axes = shown(figure)
    assert [axis.get_title() for axis in axes] == [
        "input x gradient\nl2, epsilon 0.1",
        "input x gradient\nl-infinity, epsilon 0.1",
    ]
    for axis in axes:
        for dots in axis.collections:
            # On logarithmic axes there is no zero.
            np.testing.assert_allclose(dots.get_offsets(), [[0.5 * i, 1 + i] for i in range(1, 5)])
        (diagonal,) = axis.lines
        np.testing.assert_array_equal(*diagonal.get_data())
    (legend,) = figure.legends
    # A model is named once for all panels.
    assert sorted(text.get_text() for text in legend.get_texts()) == ["a", "b", "y = x"]
    assert figures.png(figure).startswith(b"\x89PNG")


def test_gaps_of_few_models_are_bars_and_of_many_curves():
    bars = shown(figures.histogram(samples(), "Gaps"))[0]
    assert sum(patch.get_height() for patch in bars.patches) == 10
    assert bars.get_ylabel() == "samples"
    curves = shown(figures.histogram(samples(tuple("abcd")), "Gaps"))[0]
    assert not curves.patches
    # The four curves, and the line at zero.
    assert len(curves.lines) == 5
    assert curves.get_ylabel() == "share of samples below"


def test_bounds_without_a_number_are_in_no_histogram():
    lines = samples(("a",), ("l2",)).with_columns(
        euclidean=pl.when(position=0).then(math.nan).when(position=1).then(0.0).otherwise("euclidean")
    )
    assert sum(patch.get_height() for patch in shown(figures.histogram(lines, "Gaps"))[0].patches) == 3
    none = lines.with_columns(euclidean=pl.lit(math.nan))
    assert not shown(figures.histogram(none, "Gaps"))[0].patches


@pytest.mark.parametrize("metrics", [{}, {"my_metric": np.array([0.25, 0.5]), "other": np.array([0.0, 0.0])}])
@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3), (5,)])
def test_maps_before_and_after_are_on_one_scale(shape, metrics):
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(-1, 1, (2, *shape)) for name in ("before", "after")}
    arrays |= {name: rng.uniform(0, 1, (2, *shape)) for name in ("image", "perturbed")}
    figure = figures.heat_maps({**arrays, "degrees": np.array([1.25, 30.0]), **metrics}, "Maps")
    panels = [axis for axis in figure.axes if axis.images]
    assert len(panels) == 8
    for row in range(2):
        limits = [panels[4 * row + i].images[0].get_clim() for i in (1, 3)]
        assert limits[0] == limits[1]
        assert limits[0][0] == -limits[0][1]
    said = panels[7].get_xlabel()
    assert said == "moved by 30.0°" + (", my metric 0.50" if metrics else "")


def test_models_have_the_style_of_their_place():
    order = ("natural", "trades")
    assert [figures.style_of(name, order) for name in order] == [("#2b6cb0", "o"), ("#c05621", "s")]
    assert figures.style_of("novel", order) not in [figures.style_of(name, order) for name in order]
    # Places beyond the last color begin again.
    many = tuple(f"m{i}" for i in range(10))
    assert figures.style_of("m7", many) == figures.style_of("m0", many)


def test_models_come_in_an_order_and_others_before_them():
    lines = samples(("trades", "zeta", "natural", "alpha"))
    found = figures.by_model(lines, ("natural", "art", "trades"))
    assert [name for name, _ in found] == ["alpha", "zeta", "natural", "trades"]
    assert all(part["model"].unique().to_list() == [name] for name, part in found)


def test_a_legend_names_marks_of_several_panels_once():
    figure = Figure()
    for axis in figure.subplots(1, 2):
        axis.plot([0, 1], label="same")
    figures.legend_beside(figure, figure.axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["same"]
