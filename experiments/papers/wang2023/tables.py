"""Choose the columns of Tables 2 to 5 of Wang and Kong 2023, and what each of these tables is of."""

import polars as pl

from experiments.papers.paper import Needs, PaperTable
from jaxattr.audit.columns import Column

IG = "integrated_gradients"
ALL = ("saliency", "input_x_gradient", IG)
BOTH = ("l2", "linf")
OF = Needs(ALL, BOTH)
"""The rows that any of the paper's tables is of, for all models of a run."""

COUNT = Column("n", pl.col("n"), 0)
VACUOUS = Column("vacuous", pl.col("vacuous"), 1, "%")
ATTACK = Column("T̂_e", pl.col("paper"), 4)
BOUND = Column("T_e", pl.col("bound"), 4)
OUTSIDE = Column("outside T_e", pl.col("paper_outside"), 2, "%")
CORRECTED = Column("T'_e", pl.col("corrected"), 4)
ATTACK_DEGREES = Column("T̂_c", pl.col("paper_degrees"), 2, "deg")
_ALL_VACUOUS = pl.when(pl.col("vacuous") == 1).then(pl.lit("vacuous"))
BOUND_DEGREES = Column("T_c", pl.col("bound_degrees"), 2, "deg", instead=_ALL_VACUOUS)
KENDALL = Column("Kendall", pl.col("kendall"), 3)
TIGHTNESS = Column("r", pl.col("r"), 4)

OUTSIDE_ANY = Column("all attacks outside T_e", pl.col("outside"), 2, "%")
REMAINDER = Column("remainder, median", pl.col("remainder_median"), 1, "%")
_ALL_DEGREES = Column("T_c with 180", pl.col("bound_degrees_all"), 1)
_GUARANTEED = Column("Kendall guaranteed", pl.col("kendall_guaranteed"), 3)
_GUARANTEED_TOP = Column("top-k guaranteed", pl.col("top_k_guaranteed"), 3)
_GUARANTEES = Column("n of guarantees", pl.col("guaranteed_n"), 0)
_STRENGTH = (
    Column("T̂_e, largest of the attacks", pl.col("paper_max"), 4),
    Column("strongest", pl.col("strongest"), 4),
)

TABLES = {
    "2": PaperTable(
        "TRADES+IGR: three attributions, both norms",
        Needs(ALL, BOTH, ("trades_igr",)),
        (COUNT, ATTACK, BOUND, CORRECTED, ATTACK_DEGREES, BOUND_DEGREES, VACUOUS),
        decimals=2,
        # One defense has no order.
        ranked=False,
    ),
    "3": PaperTable(
        "Integrated gradients under l2 perturbations",
        Needs((IG,), ("l2",)),
        (COUNT, ATTACK, BOUND, OUTSIDE, CORRECTED, ATTACK_DEGREES, BOUND_DEGREES, VACUOUS),
        beyond=(
            _ALL_DEGREES,
            Column("T̂_e, label kept", pl.col("paper_kept"), 4),
            *_STRENGTH,
            Column("of T_e", pl.col("used"), 1, "%"),
            OUTSIDE_ANY,
            Column("all attacks outside T'_e", pl.col("outside_corrected"), 2, "%"),
            REMAINDER,
            Column("r, strongest", pl.col("r_strongest"), 4),
            _GUARANTEED,
            _GUARANTEED_TOP,
            _GUARANTEES,
        ),
    ),
    "4": PaperTable(
        "Integrated gradients under l-infinity perturbations",
        Needs((IG,), ("linf",)),
        (COUNT, KENDALL, ATTACK, BOUND, ATTACK_DEGREES, BOUND_DEGREES, VACUOUS),
        beyond=(
            _ALL_DEGREES,
            *_STRENGTH,
            Column("Theorem 2", pl.col("theorem_2"), 4),
            Column("Corollary 1", pl.col("corollary_1"), 4),
            Column("semidefinite", pl.col("semidefinite"), 4),
            Column("in the box", pl.col("semidefinite_box"), 4),
            Column("attained corner", pl.col("corner"), 4),
            OUTSIDE_ANY,
            REMAINDER,
            # Black pixels, exactly zero in both maps, are ties.
            Column("Kendall, non-zero", pl.col("kendall_nonzero"), 3),
            _GUARANTEED,
            Column("top-k", pl.col("top_k"), 3),
            _GUARANTEED_TOP,
            _GUARANTEES,
        ),
    ),
    "5": PaperTable(
        "The smallest gap r between bound and attack (Eq. 12)",
        Needs((IG,), BOTH),
        (COUNT, TIGHTNESS),
        one_radius=False,
    ),
}
