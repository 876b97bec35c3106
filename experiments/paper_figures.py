"""Figures of paper 000's evaluation: Kendall against the angle, linearity, a Jacobian, softplus by its sharpness."""

from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.figure import Figure

from experiments.figures import COLORS, STYLE

_MARKERS = "osD^vPX"


def kendall_against_angle(lines: pl.DataFrame) -> Figure:
    """Figure 2: Kendall under IFIA against the bound on the angle, a dot per model; the paper's beside ours.

    Black pixels are ties, which cap tau-b (at about 0.55 on MNIST): ours is drawn without them, too.

    Args:
      lines: of Table 4, from :func:`experiments.comparison.beside`.
    """
    sides = [("ours", "bound_degrees", "kendall")]
    if lines["kendall_nonzero"].count():
        sides.append(("ours, without pixels that are zero in both maps", "bound_degrees", "kendall_nonzero"))
    if "bound_degrees_published" in lines.columns and lines["bound_degrees_published"].count():
        sides.append(("the paper", "bound_degrees_published", "kendall_published"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(sides), 3.6), layout="constrained")
        axes: Any = figure.subplots(1, len(sides), squeeze=False)[0]
        for axis, (title, x, y) in zip(axes, sides, strict=True):
            for i, row in enumerate(lines.iter_rows(named=True)):
                if row[x] is None or row[y] is None:
                    continue
                # By the place among all models: the paper has no natural one, and colors are the same in both panels.
                color, marker = COLORS[i % len(COLORS)], _MARKERS[i % len(_MARKERS)]
                axis.plot(row[x], row[y], marker, color=color, label=row["model"].replace("_", " "))
            axis.set(title=title, xlabel="bound on the angle $T_c$, degrees", ylabel="Kendall under IFIA")
        axes[0].legend(frameon=False, fontsize=8)
    return figure


def linearity(values: pl.DataFrame) -> Figure:
    """Taylor remainder along the worst direction by radius, median and quartiles over samples."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.8), layout="constrained")
        axis: Any = figure.subplots()
        for i, ((model,), part) in enumerate(sorted(values.partition_by("model", as_dict=True).items())):
            quartiles = (
                part.group_by("epsilon")
                .agg(*(pl.col("remainder").quantile(q).alias(str(q)) for q in (0.25, 0.5, 0.75)))
                .sort("epsilon")
            )
            color = COLORS[i % len(COLORS)]
            radius = quartiles["epsilon"].to_numpy()
            style = _MARKERS[i % len(_MARKERS)] + "-"
            axis.plot(radius, quartiles["0.5"].to_numpy(), style, ms=4, color=color, label=model.replace("_", " "))
            low, high = (quartiles[name].to_numpy() for name in ("0.25", "0.75"))
            axis.fill_between(radius, low, high, color=color, alpha=0.12, linewidth=0)
        axis.set(xscale="log", yscale="log", xlabel="l2 radius", ylabel="remainder / linear change")
        axis.legend(frameon=False, fontsize=8)
    return figure


def jacobian(values: pl.DataFrame) -> Figure:
    """Figure 1b: absolute entries of the IG Jacobian of one sample, relative to the largest; a panel per model."""
    groups = sorted(values.partition_by("model", as_dict=True).items())
    columns = min(4, len(groups))
    rows = -(-len(groups) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * columns + 0.6, 2.7 * rows), layout="constrained")
        axes: Any = figure.subplots(rows, columns, squeeze=False)
        image: Any = None
        for axis in axes.ravel()[len(groups) :]:
            axis.set_axis_off()
        for axis, ((model,), part) in zip(axes.ravel(), groups, strict=False):
            size = part["row"].n_unique()
            matrix = part.sort("row", "column")["value"].to_numpy().reshape(size, size)
            first = int(part["row"].to_numpy().min())
            ends = (first - 0.5, first + size - 0.5)
            # Square roots: beside the diagonal, linear gray is black.
            image = axis.imshow(np.sqrt(matrix), cmap="magma", vmin=0, vmax=1, extent=(*ends, *ends[::-1]))
            axis.set_title(str(model).replace("_", " "))
        figure.colorbar(image, ax=axes, shrink=0.8, label="square root of |J| / max |J|")
    return figure


def sharpness(values: pl.DataFrame) -> Figure:
    """Bound, angle, remainder and accuracy of the same weights by the beta of softplus."""
    panels = (
        ("bound", "bound $T_e$", "log"),
        ("bound_degrees", "$T_c$, degrees (180 if vacuous)", "linear"),
        ("remainder", "remainder, mean", "log"),
        ("accuracy", "accuracy, 1,000 samples", "linear"),
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * len(panels) + 1.2, 3.3), layout="constrained")
        axes: Any = figure.subplots(1, len(panels))
        for axis, (column, title, scale) in zip(axes, panels, strict=True):
            for i, ((model,), part) in enumerate(sorted(values.partition_by("model", as_dict=True).items())):
                points = part.sort("beta")
                style, color = _MARKERS[i % len(_MARKERS)] + "-", COLORS[i % len(COLORS)]
                label = model.replace("_", " ")
                axis.plot(points["beta"].to_numpy(), points[column].to_numpy(), style, ms=4, color=color, label=label)
            axis.set(xscale="log", yscale=scale, xlabel="beta of softplus", title=title)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    return figure
