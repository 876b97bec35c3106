"""Rows of four samples, by hand, from which tests of summaries and tables work."""

import polars as pl

from jaxattr.audit.rows import columns

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


METRICS = ("kendall", "top_k")


def rows():
    """Return the rows of all samples, of the natural model under one norm."""
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
    return pl.DataFrame(found, schema=columns(METRICS))
