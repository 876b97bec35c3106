"""Turn a program's results for a batch into rows: one per (sample, radius, bound or attack and restart)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from experiments.config import Config
from experiments.program import BOUNDS, attack_labels, main_bound

KEYS = ("config", "weights", "model", "attribution", "norm", "epsilon", "position", "sample", "label")
_VALUES = {
    "kind": pl.String,  # "bound" or "attack"
    "method": pl.String,
    "restart": pl.Int32,
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
_ATTACK = {
    "kendall": pl.Float32,
    "kendall_nonzero": pl.Float32,
    "spearman": pl.Float32,
    "top_k": pl.Float32,
    "label_kept": pl.Boolean,
    "distance": pl.Float32,
}
_KEY_TYPES = {
    "config": pl.String,
    "weights": pl.String,
    "model": pl.String,
    "attribution": pl.String,
    "norm": pl.String,
    "epsilon": pl.Float64,
    "position": pl.Int32,  # among the samples of the run, 0 to n - 1
    "sample": pl.Int32,  # in the test split
    "label": pl.Int32,
}
SCHEMA = pl.Schema({**_KEY_TYPES, **_VALUES, **_BOUND, **_MAIN, **_ATTACK})
REQUIRED = (*_KEY_TYPES, "kind", "method", "restart")
"""Key columns of a row. Every other one may be absent from a stored part, and is null there."""


def batch_rows(
    cell: Mapping[str, str],
    epsilons: Sequence[float],
    where: slice,
    samples: np.ndarray,
    labels: np.ndarray,
    result: Mapping[str, Any],
    config: Config,
) -> pl.DataFrame:
    """Build all rows of a batch, ordered by position, radius and method.

    Args:
      cell: the columns that are the same in every row (model, attribution, norm, hashes).
      epsilons: radii, in the order of the program.
      where: positions of the batch's samples in the run.
      samples: their indices in the test split.
      labels: their classes.
      result: results of the programs, stacked over the samples, and their seconds (NaN where not known).
      config: the run.
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
        columns = {name: np.broadcast_to(np.asarray(v), shape).ravel() for name, v in {**keys, **values}.items()}
        constant = [pl.lit(value).alias(name) for name, value in cell.items()]
        return pl.DataFrame(columns).with_columns(constant)

    parts = []
    # Dictionaries come back from JAX sorted by name; `active` counts in the program's own order.
    names = [name for name in BOUNDS if name in result["bounds"]]
    for i, name in enumerate(names):
        values: dict[str, Any] = {key: v[:, :, None] for key, v in result["bounds"][name].items()}
        main = name == main_bound(tuple(names))
        values |= {"kind": "bound", "method": name, "main": main}
        values["seconds"] = result["seconds"]["bounds"] / radii / len(names)
        values["active"] = np.array(names[: max(1, i)])[values["active"]] if main else name
        if main:
            values |= {key: v[:, :, None] for key, v in {**result["corrected"], **result.get("ranks", {})}.items()}
            values |= {key: v[:, None, None] for key, v in result["sample"].items()}
        parts.append(frame(values, 1))

    attacks = attack_labels(cell["norm"], config)
    values = {
        "kind": "attack",
        "seconds": result["seconds"]["attacks"] / radii / len(attacks),
        "method": np.array([a for a, _ in attacks]),
        "restart": np.array([r for _, r in attacks]),
    }
    parts.append(frame({**values, **result["attacks"]}, len(attacks)))
    rows = pl.concat([_typed(part) for part in parts])
    return rows.sort("position", "epsilon", maintain_order=True)


def _typed(part: pl.DataFrame) -> pl.DataFrame:
    """Select all columns of the schema, null where this kind of row has no value."""
    return part.select(
        pl.col(name).cast(dtype) if name in part.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in SCHEMA.items()
    )
