"""Aggregate rows to one line per model, norm, radius and attribution: every number that the tables show.

Columns of the attacks and metrics of a run have their labels: ``ascent`` is the mean deviation under the attack of that
label, ``kept_ascent`` the share of its results that keep the label of the sample, ``kendall`` the mean of the metric of
that label.
"""

import functools
from collections.abc import Sequence

import polars as pl

from jaxattr.audit.rows import SCHEMA
from jaxattr.audit.spec import WORST_DIRECTION

# The attack whose deviation Wang and Kong 2023 compare with their bound, in the columns `paper...`.
PAPER_ATTACK = {"l2": "pgd", "linf": "ifia"}
METRICS_OF = "ifia"
"""Label of the attack under which metrics are averaged; where a run lacks it, over all of its attacks."""

GROUP = ["model", "norm", "epsilon", "attribution"]
_SAMPLE = [*GROUP, "position"]

# Shares of samples at which the gaps between bound and attack are kept, for figures without rows.
LEVELS = tuple(i / 100 for i in range(101))

# Differences of float32 attributions are exact to about 1e-5 of a deviation.
ROUNDING = 1e-4


def summarize(rows: pl.DataFrame, metrics: Sequence[str] = (), small_remainder: float = 0.05) -> pl.DataFrame:
    """Aggregate rows, one line per group.

    Means over attacks are means over restarts first, then over samples. "Strongest" is the largest deviation that any
    attack found for a sample, whether or not it kept the label: the bounds hold for all perturbations of the ball.

    Args:
      rows: as stored.
      metrics: labels of the metrics.
      small_remainder: limit of the Taylor remainder for the columns ``small_*``.
    """
    rows = rows.with_columns(pl.col(pl.Float32).cast(pl.Float64).fill_nan(None))
    bounds = rows.filter(pl.col("kind") == "bound", pl.col("main"))
    attacks = rows.filter(pl.col("kind") == "attack")
    return (
        _of_bounds(bounds)
        .join(_of_attacks(attacks, bounds, metrics), on=GROUP, how="left")
        .join(_violations(attacks, bounds, small_remainder), on=GROUP, how="left")
        .join(_of_each_bound(rows), on=GROUP, how="left")
        .sort(GROUP)
    )


@functools.cache
def reserved() -> tuple[str, ...]:
    """Return the names of the columns that every run has: attacks and metrics cannot have them as labels."""
    rows = pl.DataFrame(schema=SCHEMA)
    return tuple(dict.fromkeys([*SCHEMA, *summarize(rows).columns]))


def per_sample(rows: pl.DataFrame) -> pl.DataFrame:
    """Return per sample the main bound's columns, the mean of the paper's attack, and the strongest deviation found."""
    rows = rows.with_columns(pl.col(pl.Float32).cast(pl.Float64).fill_nan(None))
    bounds = rows.filter(pl.col("kind") == "bound", pl.col("main"))
    return bounds.join(_strength(rows.filter(pl.col("kind") == "attack")), on=_SAMPLE)


# Bounds that have columns of their own; of others the mean is in a column of their label and this suffix.
_KNOWN = ("singular_value", "norm_relaxation", "entrywise", "smallest", "semidefinite", "semidefinite_box")
BOUND_OF = "_bound"


def _of_bounds(bounds: pl.DataFrame) -> pl.DataFrame:
    vacuous = pl.col("vacuous")
    corrected_vacuous = pl.col("corrected_vacuous")
    change = pl.col("attribution_sum") - pl.col("completeness_gap")  # f(x) - f(baseline)
    return bounds.group_by(GROUP).agg(
        n=pl.len(),
        bound=pl.col("euclidean").mean(),
        bound_attained=pl.col("euclidean_attained").mean(),
        corrected=pl.col("corrected").mean(),
        constant=pl.col("constant").mean(),
        constant_plus=pl.col("constant_plus").mean(),
        attribution_norm=pl.col("attribution_norm").mean(),
        vacuous=vacuous.mean(),
        bound_degrees=pl.col("degrees").filter(~vacuous).mean(),
        bound_degrees_all=pl.when(vacuous).then(180.0).otherwise(pl.col("degrees")).mean(),
        corrected_degrees=pl.col("corrected_degrees").filter(~corrected_vacuous).mean(),
        remainder_median=pl.col("remainder").median(),
        remainder_max=pl.col("remainder").max(),
        keeps_plus=pl.col("keeps_plus").mean(),
        keeps_minus=pl.col("keeps_minus").mean(),
        keeps_either=(pl.col("keeps_plus") | pl.col("keeps_minus")).mean(),
        completeness=(pl.col("completeness_gap") / change).abs().median(),
        confidence=pl.col("confidence").min(),
        kendall_guaranteed=pl.col("kendall_guaranteed").mean(),
        top_k_guaranteed=pl.col("top_k_guaranteed").mean(),
        guaranteed_n=pl.col("kendall_guaranteed").count(),
        bound_seconds=pl.col("seconds").median(),
    )


def _of_each_bound(rows: pl.DataFrame) -> pl.DataFrame:
    """Average the single l-infinity bounds, and count how often which one was the smallest."""
    bounds = rows.filter(pl.col("kind") == "bound")

    def mean(method: str) -> pl.Expr:
        return pl.col("euclidean").filter(pl.col("method") == method).mean()

    # The largest deviation that the linear model is known to attain, without regard to the box.
    corners = (
        bounds.filter(pl.col("method") != "semidefinite_box")
        .group_by(_SAMPLE)
        .agg(corner=pl.col("euclidean_attained").max())
        .group_by(GROUP)
        .agg(pl.col("corner").mean())
    )
    means = bounds.group_by(GROUP).agg(
        corollary_1=mean("norm_relaxation"),
        theorem_2=mean("entrywise"),
        semidefinite=mean("semidefinite"),
        semidefinite_box=mean("semidefinite_box"),
        theorem_2_active=(pl.col("active").filter(pl.col("method") == "smallest") == "entrywise").mean(),
        **{
            f"{label}{BOUND_OF}": mean(label)
            for label in bounds["method"].unique(maintain_order=True)
            if label not in _KNOWN
        },
    )
    return means.join(corners, on=GROUP)


def attack_names(attacks: pl.DataFrame) -> list[str]:
    """Return the labels of attacks in the order of their rows, which is that of the run."""
    return attacks["method"].unique(maintain_order=True).to_list()


def _paper_attack() -> pl.Expr:
    return pl.col("method") == pl.col("norm").replace_strict(PAPER_ATTACK)


def _strength(attacks: pl.DataFrame, metrics: Sequence[str] = ()) -> pl.DataFrame:
    """Return per sample the means over restarts, and the strongest of all attacks."""
    deviation = pl.col("euclidean")
    labels = attack_names(attacks)
    measured = pl.col("method") == METRICS_OF if METRICS_OF in labels else pl.lit(True)

    def mean(method: str, column: str = "euclidean") -> pl.Expr:
        return pl.col(column).filter(pl.col("method") == method).mean()

    return attacks.group_by(_SAMPLE).agg(
        paper=deviation.filter(_paper_attack()).mean(),
        paper_kept=deviation.filter(_paper_attack() & pl.col("label_kept")).mean(),
        paper_max=deviation.filter(_paper_attack()).max(),
        paper_degrees=pl.col("degrees").filter(_paper_attack()).mean(),
        # Points that a bound names take no time of an attack: theirs is the bound's.
        attack_seconds=pl.col("seconds").mean() * pl.len() / (pl.col("method") != WORST_DIRECTION).sum(),
        strongest=deviation.max(),
        strongest_degrees=pl.col("degrees").max(),
        **{label: mean(label) for label in labels},
        **{f"kept_{label}": mean(label, "label_kept") for label in labels},
        **{label: pl.col(label).filter(measured).mean() for label in metrics},
    )


def _of_attacks(attacks: pl.DataFrame, bounds: pl.DataFrame, metrics: Sequence[str]) -> pl.DataFrame:
    strength = _strength(attacks, metrics)
    beside_angles = ("paper_degrees", *metrics)
    values = [name for name in strength.columns if name not in _SAMPLE]
    joined = strength.join(bounds.select(*_SAMPLE, "euclidean", "corrected", "vacuous"), on=_SAMPLE)
    # Eq. 12 takes T'_e for l2, where the paper corrects, and T_e for l-infinity, where it does not.
    limit = pl.when(pl.col("norm") == "l2").then(pl.col("corrected")).otherwise(pl.col("euclidean"))

    def quantiles(attack: str) -> pl.Expr:
        """Compute quantiles of the gap relative to the bound, one per level, as text for a CSV."""
        gap = 1 - pl.col(attack) / limit
        gap = gap.filter(gap.is_finite())
        found = pl.concat_list(gap.quantile(level, "nearest") for level in LEVELS)
        return found.list.eval(pl.element().round_sig_figs(4).cast(pl.String)).list.join(" ")

    return joined.group_by(GROUP).agg(
        *[pl.col(name).mean() for name in values if name != "attack_seconds"],
        # These means cover the same samples as the mean angle of the bound.
        *[pl.col(name).filter(~pl.col("vacuous")).mean().alias(f"{name}_bounded") for name in beside_angles],
        attack_seconds=pl.col("attack_seconds").median(),
        r=(limit - pl.col("paper")).min(),
        r_strongest=(limit - pl.col("strongest")).min(),
        used=(pl.col("strongest") / pl.col("euclidean")).mean(),
        gap_quantiles=quantiles("paper"),
        strongest_gap_quantiles=quantiles("strongest"),
    )


def _violations(attacks: pl.DataFrame, bounds: pl.DataFrame, small_remainder: float) -> pl.DataFrame:
    """Find shares of attacks outside T_e and T'_e, and the largest excess, over all samples and those nearly linear."""
    columns = [*_SAMPLE, pl.col("euclidean").alias("bound"), "corrected", "remainder"]
    joined = (
        attacks.drop("corrected", "remainder")
        .join(bounds.select(columns), on=_SAMPLE)
        .with_columns(small=pl.col("remainder") < small_remainder, paper=_paper_attack())
    )
    # An attack without a number was not seen to stay within the bound.
    found = {"attacks": pl.len(), "attacks_not_finite": pl.col("euclidean").is_null().sum()}
    for name, limit in (("outside", "bound"), ("outside_corrected", "corrected")):
        excess = pl.col("euclidean") / pl.col(limit) - 1
        outside = excess > ROUNDING
        for prefix, among in (("", pl.lit(True)), ("small_", pl.col("small"))):
            found[f"{prefix}{name}_count"] = outside.filter(among).sum()
            found[f"{prefix}{name}_excess"] = excess.filter(among & outside).max()
        found[name] = outside.mean()
        found[f"paper_{name}"] = outside.filter(pl.col("paper")).mean()
        found[f"{name}_samples"] = pl.col("position").filter(outside).n_unique()
        if name == "outside":
            found["outside_remainder"] = pl.col("remainder").filter(outside).median()
            found["outside_within"] = (outside & (excess <= pl.col("remainder"))).sum()
    found["small_n"] = pl.col("position").filter("small").n_unique()
    return joined.group_by(GROUP).agg(**found)
