"""Draw the three kinds of pictures: heat maps before and after, bound against attack, histogram of the gaps."""

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from jaxattr.audit.columns import norm_in_words, radius

COLORS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#4a5568", "#b7791f")
_MARKERS = "osD^vPX"
PICTURES = ("image", "before", "perturbed", "after", "degrees")
"""Arrays of every picture; a run's metrics come after them."""
STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10}


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Convert a figure to a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def style_of(model: str, order: Sequence[str]) -> tuple[str, str]:
    """Return the color and the marker of a model: that of its place in the order, so that all figures agree."""
    place = list(order).index(model) if model in order else len(order)
    return COLORS[place % len(COLORS)], _MARKERS[place % len(_MARKERS)]


def by_model(panel: pl.DataFrame, order: Sequence[str]) -> list[tuple[str, pl.DataFrame]]:
    """Split the lines by model, in an order; models that it lacks come first, by name."""
    parts = {str(key[0]): part for key, part in panel.partition_by("model", as_dict=True).items()}
    places = {name: i for i, name in enumerate(order)}
    return sorted(parts.items(), key=lambda item: (places.get(item[0], -1), item[0]))


def heat_maps(pictures: Mapping[str, np.ndarray], title: str) -> Figure:
    """Draw image, attribution, perturbed image and its attribution, one sample a row; both maps on one scale.

    Args:
      pictures: arrays ``image``, ``before``, ``perturbed``, ``after``, ``degrees``, stacked over samples, and those of
        metrics by their labels, the first of which is written beside the angle.
      title: title of the whole figure.
    """
    count = len(pictures["image"])
    metrics = [name for name in pictures if name not in PICTURES]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.55 + 1.85 * count), layout="constrained")
        figure.suptitle(title, fontsize=11)
        axes: Any = figure.subplots(count, 4, squeeze=False)
        heads = ("image", "attribution", "perturbed image", "its attribution")
        for row in range(count):
            before, after = _signed(pictures["before"][row]), _signed(pictures["after"][row])
            limit = max(float(np.abs(before).max()), float(np.abs(after).max()), 1e-30)
            _image(axes[row, 0], pictures["image"][row])
            _map(axes[row, 1], before, limit)
            _image(axes[row, 2], pictures["perturbed"][row])
            drawn = _map(axes[row, 3], after, limit)
            figure.colorbar(drawn, ax=axes[row, :].tolist(), shrink=0.85, pad=0.01, aspect=12)
            said = "".join(f", {name.replace('_', ' ')} {pictures[name][row]:.2f}" for name in metrics[:1])
            axes[row, 3].set_xlabel(f"moved by {pictures['degrees'][row]:.1f}°{said}", fontsize=8)
            if row == 0:
                for axis, head in zip(axes[row], heads, strict=True):
                    axis.set_title(head, fontsize=9)
    return figure


def scatter(samples: pl.DataFrame, title: str, order: Sequence[str] = ()) -> Figure:
    """Draw bound against strongest attack, one dot a sample, with the line y = x; a panel per radius and norm.

    Args:
      samples: one line per sample, from :func:`jaxattr.audit.summary.per_sample`.
      title: title of the whole figure.
      order: of the models, which decides their colors.
    """

    def draw(axis: Axes, panel: pl.DataFrame) -> None:
        positive = panel.filter((pl.col("strongest") > 0) & (pl.col("euclidean") > 0))
        _dots(axis, positive, "strongest", "euclidean", order)
        values = np.concatenate([positive["strongest"].to_numpy(), positive["euclidean"].to_numpy()])
        if len(values):
            ends = [values.min() / 1.3, values.max() * 1.3]
            axis.plot(ends, ends, color="#1a202c", linewidth=1, label="y = x")
            axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
            # Powers of ten alone leave panels of less than a decade without numbers; all digits overlap.
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_locator(LogLocator(subs=(1, 2, 5)))
                side.set_major_formatter(StrMethodFormatter("{x:g}"))
                side.set_minor_formatter(NullFormatter())
        axis.set(xlabel="strongest attack found", ylabel="bound $T_e$", aspect="equal")

    return panels(samples, title, draw)


def histogram(samples: pl.DataFrame, title: str, order: Sequence[str] = ()) -> Figure:
    """Draw the gaps between bound and strongest attack, relative to the bound; below zero an attack is outside.

    Bars of more than three models hide each other: curves then show the share of samples below each gap.
    """
    cumulative = samples["model"].n_unique() > 3

    def draw(axis: Axes, panel: pl.DataFrame) -> None:
        gaps = panel.with_columns(gap=1 - pl.col("strongest") / pl.col("euclidean"))
        gaps = gaps.filter(pl.col("gap").is_finite())
        values = gaps["gap"].to_numpy()
        if not len(values):
            return
        bins = np.linspace(min(values.min(), 0.0), max(values.max(), 1e-3), 31)
        for name, part in by_model(gaps, order):
            if cumulative:
                axis.ecdf(part["gap"].to_numpy(), color=style_of(name, order)[0], label=name)
            else:
                axis.hist(
                    part["gap"].to_numpy(), bins=bins.tolist(), color=style_of(name, order)[0], alpha=0.55, label=name
                )
        axis.axvline(0, color="#1a202c", linewidth=1)
        what = "share of samples below" if cumulative else "samples"
        axis.set(xlabel="(bound - strongest attack) / bound", ylabel=what)

    return panels(samples, title, draw)


def panels(samples: pl.DataFrame, title: str, draw: Any) -> Figure:
    """Draw a panel for each attribution, norm and radius; ``draw(axis, lines)`` fills it."""
    groups = sorted(samples.partition_by("attribution", "norm", "epsilon", as_dict=True).items(), key=_order)
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 0.5 + 3.3 * rows), layout="constrained")
        # Wrap the title: in a narrow figure a long line would reach the legend.
        figure.suptitle(textwrap.fill(title, 28 * columns), fontsize=11)
        axes: Any = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.ravel()[len(groups) :]:
            axis.set_axis_off()
        for axis, ((attribution, norm, epsilon), panel) in zip(axes.ravel(), groups, strict=False):
            draw(axis, panel)
            axis.set_title(f"{attribution.replace('_', ' ')}\n{norm_in_words(norm)}, epsilon {radius(epsilon)}")
        legend_beside(figure, axes.ravel(), "outside right upper")
    return figure


def legend_beside(figure: Figure, axes: Iterable[Axes], place: Any = "outside right center") -> None:
    """Add one legend for all panels, right of them: it names a label of several panels once."""
    named = {text: mark for axis in axes for mark, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(named.values()), list(named), loc=place, frameon=False, fontsize=8)


def _order(group: tuple[Sequence[Any], Any]) -> tuple[Any, ...]:
    attribution, norm, epsilon = group[0]
    return norm, epsilon, attribution


def _dots(axis: Axes, panel: pl.DataFrame, x: str, y: str, order: Sequence[str]) -> None:
    for name, part in by_model(panel, order):
        color = style_of(name, order)[0]
        axis.scatter(part[x].to_numpy(), part[y].to_numpy(), s=10, alpha=0.6, color=color, linewidths=0, label=name)


def _signed(values: np.ndarray) -> np.ndarray:
    """Add up the channels with their signs, for a picture."""
    return values.sum(axis=-1) if values.ndim == 3 else np.atleast_2d(values)


def _image(axis: Axes, values: np.ndarray) -> None:
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    axis.imshow(np.atleast_2d(values), cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])


def _map(axis: Axes, values: np.ndarray, limit: float) -> Any:
    drawn = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.set(xticks=[], yticks=[])
    return drawn
