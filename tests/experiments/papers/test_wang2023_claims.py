"""Verdicts on the statements of Wang and Kong 2023, by numbers that are made for them."""

import polars as pl
from small_papers import PAPER, lines, record

from experiments.papers.wang2023 import figures
from experiments.papers.wang2023.claims import MODELS, claims

FIGURE_2 = "a larger Kendall goes with a smaller T_c (Figure 2)"


def judged(of, preset="cpu", **values):
    return {claim.text: claim for claim in claims(PAPER, record(of, preset, **values))}


def test_an_order_that_is_the_papers_is_held():
    theirs = PAPER.published("4").filter(dataset="mnist")
    bounds = dict(theirs.select("model", "bound").iter_rows())
    ours = pl.concat([lines().filter(pl.col("norm") == "linf").head(1)] * 6).with_columns(
        model=pl.Series(MODELS), bound=pl.Series([2 * bounds[model] for model in MODELS])
    )
    text = "not claimed: the paper's order of the defenses by T_e is ours, too (Table 4)"
    opposite = ours.with_columns(bound=1 / pl.col("bound"))
    same, reverse = (judged(of)[text] for of in (ours, opposite))
    assert (same.held, same.figure) == (True, "Spearman 1.00 over 6 defenses (p = 0.0028)")
    assert reverse.held is False


def test_claims_are_judged_by_the_figures():
    ours = lines(
        paper_outside=[0.01, 0.062, 0.0, 0.0, 0.0, 0.0],
        paper_outside_corrected=[0.0, 0.001, 0.0, 0.0, 0.0, 0.0],
        r=[0.1, 0.2, 0.3, 0.1, -0.2, 0.3],
        kendall_bounded=[0.0] * 3 + [0.1, 0.2, 0.3],
        kendall=[0.0] * 3 + [0.1, 0.3, 0.2],
        paper_degrees=[1.0] * 3 + [3.0, 1.0, 2.0],
        bound_degrees=[0.0] * 3 + [30.0, 20.0, 10.0],
        theorem_2_active=[None] * 3 + [1.0, 0.9, 1.0],
    )
    ours = ours.with_columns(paper=0.4, paper_degrees_bounded=pl.lit(12.0))
    shares = {"adversarial": 1.0, "ig_norm": 0.25, "natural": 0.0}
    dominant = {model: {"share": share, "n": 7} for model, share in shares.items()}
    found = judged(ours, dominant=dominant)
    held = {text: claim.held for text, claim in found.items()}
    tightest = (
        "the tightest bound is only some ten-thousandths above the attack (Table 5; a minimum, which falls with n)"
    )
    cosine = "Kendall grows with cosine similarity: T̂_c falls (Section 5.3)"
    assert held == {
        "few attacked attributions are outside of T_e (l2; at most 6.2 % in Table 3, at its one radius)": True,
        "none is outside of T'_e (l2)": False,
        "r > 0 (l2, to T'_e)": True,
        "none is outside of the l-infinity bound": True,
        "r > 0 (l-infinity)": False,
        "means under attack are below the bounds, T̂_e < T_e": True,
        "means under attack are below the bounds, T̂_c < T_c": False,
        tightest: False,
        FIGURE_2: None,
        f"{FIGURE_2}, without pixels that are zero in both maps": None,
        cosine: None,
        f"{cosine}, without pixels that are zero in both maps": None,
        "not claimed: the paper's order of the defenses by T_e is ours, too (Table 3)": None,
        "not claimed: the paper's order of the defenses by T_c is ours, too (Table 3)": None,
        "not claimed: the paper's order of the defenses by T_e is ours, too (Table 4)": None,
        "not claimed: the paper's order of the defenses by T_c is ours, too (Table 4)": None,
        "Theorem 2 is tighter than Corollary 1": False,
        "P is diagonally dominant (Figure 1b)": False,
    }
    assert {claim.n for claim in found.values()} == {"7"}
    assert found["none is outside of T'_e (l2)"].figure == "at most 0.10 % (IG-NORM, epsilon 0.05)"
    assert found["r > 0 (l-infinity)"].figure == "at least -0.2 (IG-NORM, epsilon 0.05)"
    words = "in 25.0 to 100.0 % of the rows that are not zero, of 2 defenses"
    assert found["P is diagonally dominant (Figure 1b)"].figure == words
    # Of the six orders of three defenses two are as extreme; the paper's six are from its Table 4.
    words = "Spearman -1.00 over 3 defenses (p = 0.33); the paper's six: -0.77 (p = 0.1)"
    assert found[FIGURE_2].figure == words
    assert found[cosine].figure.startswith("Spearman -1.00 over 3 defenses (p = 0.33); the paper's six: ")
    # Of attacks on three images nothing is said.
    assert set(judged(ours, "dense", dominant=dominant)) == {
        "Theorem 2 is tighter than Corollary 1",
        "P is diagonally dominant (Figure 1b)",
    }
    # Of an attack that came to no number nothing is known.
    without = judged(ours.with_columns(attacks_not_finite=pl.when(model="art").then(0).otherwise(1)))
    assert without["r > 0 (l2, to T'_e)"].held is None
    assert without["none is outside of T'_e (l2)"].held is False


def test_models_without_an_angle_have_no_order():
    ours = lines(bound_degrees=[1.0] * 3 + [20.0, None, None], dataset=["cifar10"] * 6, epsilon=[0.1] * 6)
    claim = judged(ours)[FIGURE_2]
    assert claim.held is None
    assert claim.figure.startswith("no order of 3 defenses: all bounds of 2 are vacuous; the paper's six: -0.")
    # The paper's panel stands alone; of a data set that it does not have, there is none.
    assert len(figures.kendall_against_angle(PAPER, record(ours)).axes) == 1
    elsewhere = record(ours.with_columns(dataset=pl.lit("digits")))
    assert figures.kendall_against_angle(PAPER, elsewhere) is None


def test_an_order_that_could_be_chance_is_undecided():
    ours = lines(kendall_bounded=[0.0] * 3 + [0.1, 0.3, 0.2], bound_degrees=[0.0] * 3 + [30.0, 20.0, 10.0])
    assert judged(ours)[FIGURE_2].held is None


def test_a_claim_is_of_its_own_rows():
    """Rows of another attribution or model, however bad, change no verdict and no number."""
    ours = lines()
    bad = {"paper_outside": 1.0, "paper_outside_corrected": 1.0, "r": -9.0, "paper": 99.0, "n": 3}
    others = [
        lines(attribution=["novel"] * 6).with_columns(**{name: pl.lit(value) for name, value in bad.items()}),
        lines(model=["stranger"] * 6).with_columns(**{name: pl.lit(value) for name, value in bad.items()}),
    ]
    both = pl.concat([ours, *others], how="vertical_relaxed").with_columns(novel_metric=0.5, kept_novel_attack=0.5)
    assert judged(both) == judged(ours)
