"""What the page of paper 000 says beside its numbers: names, terms, notes at tables, where the paper is wrong."""

import polars as pl

from experiments.config import Config

# In the order of the page: the paper's, and its Appendix D.3 last.
DATASETS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar10_jpeg": "CIFAR-10 (as JPEG)",
    "oxford_flowers12": "Flower (Appendix D.3; 12 species)",
    "photographs": "ImageNet (Appendix D.3; a published network on two photographs)",
    "digits": "digits (not in the paper)",
}
INTRO = (
    "Wang and Kong, CVPR 2023 (paper 000). Numbers in brackets, in columns called *paper*, are the paper's; empty"
    " ones are what it does not print. Models: adversarial is the paper's AT, ig_norm its IG-NORM, adv_aat AdvAAT,"
    " art ART, trades TRADES, trades_igr TRADES+IGR; natural is none of its. Rows are in alphabetical order. Run"
    " every command in the repository; `python -m experiments report` writes this page."
)
TERMS = (
    "T_e, T_c: the paper's bounds on Euclidean distance and angle; T'_e is the corrected one (Eq. 11), r the"
    " smallest gap between bound and attack (Eq. 12; for l2 to T'_e).",
    "T̂_e, T̂_c: what the paper's attack does (PGD for l2, IFIA for l-infinity), the mean over starts and n"
    " samples; Kendall is that under IFIA. *Strongest*: the largest deviation that anything found: these attacks,"
    " ascent on the deviation itself, and the bound's own directions, which count as attacks, too.",
    "Vacuous: T_e is beyond the length of the map, so that T_c says nothing. Means of T_c leave such samples out;"
    " *T_c with 180* counts them as 180 degrees.",
    "Remainder: how far the attribution is from linear along the bound's worst direction, relative to the linear"
    " change.",
    "Semidefinite: our bound for l-infinity, below Theorem 2; *in the box*: the same for inputs that stay valid."
    " Attained corner: what the linear model reaches at a corner of the ball, a limit to every bound from below."
    " Guaranteed: ranks that no attack on the linear model can go below, of the first samples of a run.",
    "Epsilon is in units of inputs in [0, 1]. A singular value is an upper limit with the stated probability.",
)
CLAIMS = (
    "For integrated gradients unless said, the paper's own attack, all radii, and those of its six defenses that were"
    " run. What other attacks do is under *Attacks outside of the bounds* of each data set."
)
# Proofs and counterexamples are in docs/bounds.md.
NOT_SO = (
    "Theorem 2 is said to be attained at all corners of the ball, and to be tighter than Corollary 1. Neither holds in"
    " general: for P = 3 I - E of three features, E all ones, the maximum of v'Pv over signs v is 8, Corollary 1 gives"
    " 9 and Theorem 2 gives 12. The bound here is the smaller one, and the share of samples where that is Theorem 2"
    " stands in the claims.",
    "The label constraint is said to leave the bounds unchanged since one of +v and -v keeps the label. That is so"
    " for one competing label; two half-spaces can exclude both.",
    "T'_e scales T_e by what happens along one direction. It repairs that direction, and bounds no other.",
    "Table 2 has the l-infinity radius 0.25 in its text; its entries are those of Table 4 at 0.1.",
    "The columns of Tables 3 and 4 for CIFAR-10 do not fit each other: T_e / sin(T_c), which is about the norm of"
    " the attribution, differs by a factor of three between them.",
)


def place(dataset: str) -> int:
    """Of a data set on the page."""
    return list(DATASETS).index(dataset) if dataset in DATASETS else len(DATASETS)


def title(dataset: str) -> str:
    """A data set's name for readers."""
    return DATASETS.get(dataset, dataset)


def settings(config: Config, lines: pl.DataFrame) -> str:
    """How many samples and attacks stand behind a run's numbers, beside the paper's."""
    few, many = lines["n"].min(), lines["n"].max()
    count = f"{few}" if few == many else f"{few} to {many}"
    return (
        f"{count} test samples a row (the paper: all); IG with {config.ig_steps} points"
        f" ({config.ig_rule.replace('_', ' ')}); {config.restarts} starts of PGD-{config.pgd_steps} (20 of PGD-20),"
        f" {config.ifia_restarts} of IFIA-{config.ifia_steps} (20 of IFIA-200), and {config.ascent_restarts} that climb"
        f" the deviation itself; singular values with a probability of {config.confidence:g}."
    )


def note(number: str, lines: pl.DataFrame) -> str:
    """What a reader of a table has to know to read it.

    Args:
      number: of the table.
      lines: from :func:`experiments.comparison.beside`.
    """
    if number == "2" and not any(lines[name].count() for name in lines.columns if name.endswith("_published")):
        return "The paper's Table 2 is of CIFAR-10 and radii of its own, and not beside ours."
    if number == "4":
        which = (
            "T_e is the smaller one of Theorem 2 and Corollary 1."
            if lines["theorem_2"].count()
            else "T_e is Corollary 1, by products: Theorem 2 needs the whole Jacobian (preset dense)."
        )
        ties = "Pixels that are zero in both maps are ties, which cap Kendall; *non-zero*, below, is without them."
        return f"{which} {ties}"
    return ""
