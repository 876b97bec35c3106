"""Draw figures of Wang and Kong 2023: Kendall against the angle, gaps, a Jacobian, linearity, softplus by sharpness."""

from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.papers.compare import join_published
from experiments.papers.paper import Paper
from experiments.papers.record import Record
from experiments.papers.wang2023.tables import IG
from jaxattr.audit.figures import STYLE, by_model, legend_beside, panels, style_of
from jaxattr.audit.summary import LEVELS

# The seven that are drawn together have colors of their own, the same in all figures of all data sets.
ORDER = ("natural", "adversarial", "ig_norm", "adv_aat", "art", "trades", "trades_igr")


def _label(paper: Paper, model: str) -> str:
    return paper.model_name(model).replace("_", " ")


def kendall_against_angle(paper: Paper, record: Record) -> Figure | None:
    """Draw Figure 2: Kendall under IFIA against the bound on the angle, a mark per model; the paper's beside ours.

    Black pixels are ties, which cap tau-b (at about 0.55 on MNIST): ours is drawn without them, too. A side without two
    models to compare is left out: those whose every bound is vacuous have no place in it.

    Returns:
      The figure; None if no side is left.
    """
    # The preset dense adds three samples to what another run compares with the paper.
    lines = join_published(paper, "4", record.lines, whole=record.preset != "dense")
    sides = [
        side
        for side in (
            ("ours", "bound_degrees", "kendall_bounded"),
            ("ours, without pixels that are zero in both maps", "bound_degrees", "kendall_nonzero_bounded"),
            ("the paper", "bound_degrees_published", "kendall_published"),
        )
        if set(side[1:]) <= set(lines.columns) and len(lines.drop_nulls(side[1:])) > 1
    ]
    if not sides:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.3 * len(sides) + 1.2, 3.6), layout="constrained")
        axes: Any = figure.subplots(1, len(sides), squeeze=False)[0]
        for axis, (title, x, y) in zip(axes, sides, strict=True):
            for row in lines.drop_nulls([x, y]).iter_rows(named=True):
                color, marker = style_of(row["model"], ORDER)
                axis.plot(row[x], row[y], marker, color=color, label=_label(paper, row["model"]))
            axis.set(title=title, xlabel="bound on the angle $T_c$, degrees", ylabel="Kendall under IFIA")
        legend_beside(figure, axes)
    return figure


def gaps(paper: Paper, record: Record) -> Figure | None:
    """Draw Appendix D: shares of samples by the gap between bound and attack, relative to the bound.

    The paper has histograms of absolute gaps; bars of seven models hide each other, and their scales differ.
    """
    lines = record.lines.filter(pl.col("attribution") == IG).drop_nulls("gap_quantiles")
    if not len(lines):
        return None

    def draw(axis: Axes, panel: pl.DataFrame) -> None:
        for model, part in by_model(panel, ORDER):
            for column, style in (("gap_quantiles", "-"), ("strongest_gap_quantiles", ":")):
                quantiles = [float(value) for value in (part[column][0] or "").split()]
                if quantiles:
                    label = _label(paper, model) if style == "-" else "_strongest"
                    axis.plot(
                        quantiles, LEVELS, color=style_of(model, ORDER)[0], linestyle=style, linewidth=1.2, label=label
                    )
        axis.axvline(0, color="#1a202c", linewidth=1)
        axis.set(xlabel="(bound - attack) / bound", ylabel="share of samples below", ylim=(0, 1))

    return panels(lines, "Gaps between bound and the paper's attack (solid) and the strongest one (dotted)", draw)


def jacobian(paper: Paper, values: pl.DataFrame, _: Any) -> Figure:
    """Draw Figure 1b: absolute entries of the IG Jacobian of one sample, relative to the largest; a panel per model."""
    groups = by_model(values, ORDER)
    columns = min(4, len(groups))
    rows = -(-len(groups) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.7 * columns + 0.6, 3.0 * rows), layout="constrained")
        axes: Any = figure.subplots(rows, columns, squeeze=False)
        image: Any = None
        for axis in axes.ravel()[len(groups) :]:
            axis.set_axis_off()
        for axis, (model, part) in zip(axes.ravel(), groups, strict=False):
            size = part["row"].n_unique()
            matrix = part.sort("row", "column")["value"].to_numpy().reshape(size, size)
            first = int(part["row"].to_numpy().min())
            ends = (first - 0.5, first + size - 0.5)
            # Draw square roots: beside the diagonal, linear gray is black.
            image = axis.imshow(np.sqrt(matrix), cmap="magma", vmin=0, vmax=1, extent=(*ends, *ends[::-1]))
            axis.set_title(
                f"{_label(paper, model)}\ndominant in {100 * part['dominant'][0]:.1f} % of rows of P", fontsize=8
            )
            axis.set(xlabel="feature of the input", ylabel="feature of the map")
        figure.colorbar(image, ax=axes, shrink=0.8, label="square root of |J| / max |J|")
    return figure


def linearity(paper: Paper, values: pl.DataFrame, config: Any) -> Figure:
    """Draw the Taylor remainder along the worst direction by radius, median and quartiles over samples.

    Args:
      paper: whose figure it is.
      values: from :func:`experiments.papers.wang2023.values.linearity`.
      config: of the run, whose radii are marked on the axis.
    """
    radii = list(config.l2 or ())
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axis: Any = figure.subplots()
        for model, part in by_model(values, ORDER):
            quartiles = (
                part.group_by("epsilon")
                .agg(*(pl.col("remainder").quantile(q).alias(str(q)) for q in (0.25, 0.5, 0.75)))
                .sort("epsilon")
            )
            color, marker = style_of(model, ORDER)
            radius = quartiles["epsilon"].to_numpy()
            axis.plot(radius, quartiles["0.5"].to_numpy(), marker + "-", ms=4, color=color, label=_label(paper, model))
            for name in ("0.25", "0.75"):
                axis.plot(radius, quartiles[name].to_numpy(), color=color, linewidth=0.5)
        axis.set(xscale="log", yscale="log", xlabel="l2 radius", ylabel="remainder / linear change")
        bottom = axis.get_ylim()[0]
        axis.plot(radii, [bottom] * len(radii), "^", color="#1a202c", ms=5, clip_on=False)
        axis.set_ylim(bottom=bottom)
        legend_beside(figure, [axis])
    return figure


def sharpness(paper: Paper, values: pl.DataFrame, config: Any) -> Figure:
    """Draw bound, angle, remainder and accuracy of the same weights by the beta of softplus.

    Args:
      paper: whose figure it is.
      values: from :func:`experiments.papers.wang2023.values.beta`.
      config: of the run, whose beta is that of the training.
    """
    trained = config.beta
    radius = f"l2 {values['epsilon'][0]:.3g}"
    shown = (
        ("bound", f"$T_e$ at {radius}", "log"),
        ("bound_degrees", f"$T_c$ at {radius}, degrees\n(180 if vacuous)", "linear"),
        ("remainder", "remainder / linear change", "log"),
        ("accuracy", "accuracy, share of 1,000", "linear"),
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * len(shown) + 1.2, 3.4), layout="constrained")
        axes: Any = figure.subplots(1, len(shown))
        for axis, (column, title, scale) in zip(axes, shown, strict=True):
            for model, part in by_model(values, ORDER):
                points, (color, marker) = part.sort("beta"), style_of(model, ORDER)
                x, y = points["beta"].to_numpy(), points[column].to_numpy()
                axis.plot(x, y, marker + "-", ms=4, color=color, label=_label(paper, model))
            axis.axvline(trained, color="#a0aec0", linewidth=1, zorder=0)
            axis.set(xscale="log", yscale=scale, xlabel="beta of softplus", title=title)
            # Powers of ten alone would name two of five.
            axis.set_xticks(sorted(values["beta"].unique()), [f"{beta:g}" for beta in sorted(values["beta"].unique())])
            axis.tick_params(axis="x", which="minor", length=0)
        legend_beside(figure, axes[:1])
    return figure
