"""Turn a program's results for a batch into rows: one per (sample, radius, bound or attack and restart)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from jaxattr.audit import spec
from jaxattr.audit.measure import attack_labels, bound_labels, main_label
from jaxattr.audit.spec import Measures

KEYS = {
    "config": pl.String,  # the hash of what determines the rows, from `spec.identity`
    "weights": pl.String,
    "model": pl.String,
    "attribution": pl.String,
    "norm": pl.String,
    "epsilon": pl.Float64,
    "position": pl.Int32,  # among the samples of the run, 0 to n - 1
    "sample": pl.Int32,  # in the test split
    "label": pl.Int32,
    "kind": pl.String,  # "bound" or "attack"
    "method": pl.String,
    "restart": pl.Int32,
}
"""Key columns of a row. Every other one may be absent from a stored part, and is null there."""

_VALUES = {
    "euclidean": pl.Float32,
    "cosine": pl.Float32,
    "degrees": pl.Float32,
    "seconds": pl.Float32,  # an equal share of the batch's and program's; NaN where they were those of compilation
}
_BOUND = {
    "main": pl.Boolean,  # the bound that counts, where there are several
    "euclidean_attained": pl.Float32,
    "vacuous": pl.Boolean,
    "attribution_norm": pl.Float32,
    "confidence": pl.Float32,
    "active": pl.String,
}
# Columns of the main bound only.
_MAIN = {
    "corrected": pl.Float32,
    "corrected_degrees": pl.Float32,
    "corrected_vacuous": pl.Boolean,
    "constant": pl.Float32,
    "constant_plus": pl.Float32,
    "remainder": pl.Float32,
    "keeps_plus": pl.Boolean,
    "keeps_minus": pl.Boolean,
    "margin": pl.Float32,
    "completeness_gap": pl.Float32,
    "attribution_sum": pl.Float32,
    "kendall_guaranteed": pl.Float32,  # these two are of the run's first samples only
    "top_k_guaranteed": pl.Float32,
}
_ATTACK = {"label_kept": pl.Boolean, "distance": pl.Float32}

SCHEMA = pl.Schema({**KEYS, **_VALUES, **_BOUND, **_MAIN, **_ATTACK})
"""Columns of every run; a run's metrics come after them, as numbers."""


def columns(metrics: Sequence[str]) -> pl.Schema:
    """Return all columns of a run with these metrics."""
    return pl.Schema({**SCHEMA, **dict.fromkeys(metrics, pl.Float32())})


def batch_rows(
    cell: Mapping[str, str],
    epsilons: Sequence[float],
    where: slice,
    samples: np.ndarray,
    labels: np.ndarray,
    result: Mapping[str, Any],
    measures: Measures,
) -> pl.DataFrame:
    """Build all rows of a batch, ordered by position, radius and method.

    Args:
      cell: the columns that are the same in every row (model, attribution, norm, hashes).
      epsilons: radii, in the order of the program.
      where: positions of the batch's samples in the run.
      samples: their indices in the test split.
      labels: their classes.
      result: results of the programs, stacked over the samples, and their seconds (NaN where not known).
      measures: what is measured.
    """
    n = where.stop - where.start
    radii = len(epsilons)

    def frame(values: Mapping[str, np.ndarray | str | int | bool], methods: int) -> pl.DataFrame:
        """Build rows from arrays that broadcast to (samples, radii, methods)."""
        shape = (n, radii, methods)
        keys = {
            "epsilon": np.asarray(epsilons)[None, :, None],
            "position": np.arange(where.start, where.stop)[:, None, None],
            "sample": samples[:, None, None],
            "label": labels[:, None, None],
        }
        arrays = {name: np.broadcast_to(np.asarray(v), shape).ravel() for name, v in {**keys, **values}.items()}
        constant = [pl.lit(value).alias(name) for name, value in cell.items()]
        return pl.DataFrame(arrays).with_columns(constant)

    parts = []
    # Dictionaries come back from JAX sorted by name; `active` counts in the program's own order.
    names = [name for name in bound_labels(measures, cell["norm"], result["size"]) if name in result["bounds"]]
    main, merged = main_label(measures, names), spec.main_bounds(measures, names)
    for name in names:
        values: dict[str, Any] = {key: v[:, :, None] for key, v in result["bounds"][name].items()}
        values |= {"kind": "bound", "method": name, "main": name == main}
        values["seconds"] = result["seconds"]["bounds"] / radii / len(names)
        values["active"] = np.array(merged)[values["active"]] if name == main and len(merged) > 1 else name
        if name == main:
            values |= {key: v[:, :, None] for key, v in {**result["corrected"], **result.get("ranks", {})}.items()}
            values |= {key: v[:, None, None] for key, v in result["sample"].items()}
        parts.append(frame(values, 1))

    attacks = attack_labels(measures, points=result["attacks"]["distance"].shape[2])
    values = {
        "kind": "attack",
        "seconds": result["seconds"]["attacks"] / radii / len(attacks),
        "method": np.array([a for a, _ in attacks]),
        "restart": np.array([r for _, r in attacks]),
    }
    parts.append(frame({**values, **result["attacks"]}, len(attacks)))
    schema = columns(tuple(spec.metrics(measures)))
    rows = pl.concat([_typed(part, schema) for part in parts])
    return rows.sort("position", "epsilon", maintain_order=True)


def _typed(part: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Select all columns of the schema, null where this kind of row has no value."""
    return part.select(
        pl.col(name).cast(dtype) if name in part.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in schema.items()
    )
