"""Texts of the page of Wang and Kong 2023 beside its numbers: names, terms, notes, where the paper is wrong."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from experiments import claims, published, sweeps
from experiments.config import Config

# Data sets in the order of the page: the paper's, and its Appendix D.3 last.
DATASETS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar10_jpeg": "CIFAR-10 (a copy whose images were compressed as JPEG)",
    "oxford_flowers12": "Flower (Appendix D.3; 12 species)",
    "photographs": "ImageNet (Appendix D.3; a published network on two photographs)",
    "digits": "digits (not in the paper)",
}
INTRO = (
    "Wang and Kong, CVPR 2023. Numbers in brackets, in columns called *paper*, are the paper's; empty ones"
    " are what it does not print, and rows without ours are its models and radii that were not run. Its appendices"
    " were not at hand: what is named after one here has its subject and not its numbers. Models have its names, in"
    f" one order; commands call them {', '.join(f'{ours} ({name})' for ours, name in published.NAMES.items())}; natural"
    " is in none of Tables 2 to 5. Run every command in the repository; `python -m experiments report` writes this"
    " page. The tables here show columns and radii that the paper has: all that were computed are in `tables/`, a CSV"
    " for each data set and preset."
)
COMPARE = (
    "Absolute values depend on how the networks were trained, which the paper does not say. Ours were trained for as"
    " long as is stated below, some for a fraction of an epoch, and the attacks are shorter and fewer than the"
    " paper's: compare shares and ratios, take another order of the defenses for a hint, and a bound that held for one"
    " that these attacks did not break. IFIA of the results here stays where it lost the label; the library's has since"
    " learned to come back from there."
)
TERMS = (
    "T_e, T_c: the paper's bounds on Euclidean distance and angle; T'_e is the corrected one (Eq. 11), r the"
    " smallest gap between bound and attack (Eq. 12; for l2 to T'_e).",
    "T̂_e, T̂_c: what the paper's attack does (PGD for l2, IFIA for l-infinity), the mean over starts and n samples;"
    " Kendall is that under IFIA. *Strongest*: the largest deviation that anything found: these attacks, ascent on"
    " the deviation itself, and the bound's own directions, which count as attacks, too. *Label kept*: the mean over"
    " those attacks that keep the label. Shares *outside* are of attacks: one sample is attacked many times.",
    "r, strongest: for l2 nearly zero wherever T'_e corrects, since it is made to reach the end of the bound's own"
    " direction, which is one of the attacks.",
    "Vacuous: T_e is beyond the length of the map, so that T_c says nothing. Means of T_c leave such samples out;"
    " *T_c with 180* counts them as 180 degrees. What is compared with T_c in the claims and in Figure 2 leaves them"
    " out, too.",
    "Remainder: how far the attribution is from linear along the bound's worst direction, relative to the linear"
    " change.",
    "Semidefinite: our bound for l-infinity, below Theorem 2; *in the box*: the same for inputs that stay valid."
    " Attained corner: what the linear model reaches at a corner of the ball, a limit to every bound from below."
    " Guaranteed: ranks that no attack on the linear model can go below, the mean over the first samples of a run, as"
    " many as *n of guarantees* says.",
    "Epsilon is in units of inputs in [0, 1]. A singular value is an upper limit with the stated probability.",
)
CLAIMS = (
    "From the CSVs in `tables/`, which have all radii; the tables below, with the commands that make them, show some."
    " For integrated gradients unless said, the paper's kind of attack (with the fewer steps and starts that stand"
    " below), and those of its six defenses that were run, n samples of each. *Undecided*: by chance alone so few"
    " defenses have such an order, or the opposite one, in more than one case of twenty (p > 0.05). What other attacks"
    " do is under *Attacks outside of the bounds* of each data set. Of the preset dense, three images, only what needs"
    " no attack is judged; of Flower and ImageNet, which have no defenses, nothing is."
)
ORDER = (
    "Spearman's correlation over the defenses of our column with the paper's, and the probability p of one as large by"
    " chance, in this direction or the opposite: is their order the same?"
)
CAPTIONS = {
    "2": (
        "A mark for each model, means over its samples; angles leave vacuous samples out, as in Table 4, and a model"
        " whose every bound is vacuous has no mark: where all of ours are, the paper's panel stands alone. The paper's"
        " numbers have a panel of their own. Every panel has its own scales."
    ),
    "gaps": (
        "The paper's Appendix D shows T_e less the mean deviation under its attack, and finds all positive and most"
        " close to zero. Here it is relative to the bound, so that models compare: 1 - attack / bound, the bound that r"
        " takes (T'_e for l2, T_e for l-infinity), and cumulative, as the share of samples with a smaller gap. The"
        " attack is the mean of the paper's own (solid), and the strongest of all (dotted). What is left of zero is"
        " outside of the bound; a gap of 1 is that of an attack which found nothing better than the sample itself, as"
        " IFIA does where no pixel leaves the k largest."
    ),
    "1b": (
        "Square roots of absolute entries relative to the largest of the whole matrix (beside the diagonal, all others"
        " would be black), for the first test sample that each model classifies correctly: the"
        f" {sweeps.WINDOW} features in the middle of the image in rows and columns (the paper has the first 100 of a"
        " CIFAR-10 image; those of MNIST are black). Above each: of the rows of P = J'J that are not zero, in the"
        f" first {sweeps.SAMPLES} samples (or as many as the preset has), the share in which the diagonal is at least"
        " the sum of the others, which is what diagonal dominance means."
    ),
    "linearity": (
        "The Taylor remainder of integrated gradients along the bound's worst direction relative to the linear change,"
        f" by l2 radius, of the first {sweeps.SAMPLES} samples that each model classifies correctly: medians, and"
        " quartiles as thin lines. Triangles on the axis are the radii of Table 5."
    ),
    "beta": (
        "Weights trained with one softplus, evaluated with others: means over the first"
        f" {sweeps.SAMPLES} correctly classified samples, integrated gradients, at the main l2 radius (that of"
        " Table 3); accuracy of the first 1,000 test images. The vertical line is the beta of training."
    ),
}
NOT_DRAWN = "Nobody has computed them for this page. What makes them:"
# Proofs and counterexamples are in docs/bounds.md.
NOT_SO = (
    "Theorem 2 is said to be attained at all corners of the ball, and to be tighter than Corollary 1. Neither holds in"
    " general: for P = 3 I - E of three features, E all ones, the maximum of v'Pv over signs v is 8, Corollary 1 gives"
    " 9 and Theorem 2 gives 12. The bound here is the smaller one, and the share of samples where that is Theorem 2"
    " stands in the claims.",
    "The label constraint is said to leave the bounds unchanged since one of +v and -v keeps the label. Against the"
    " one competing label that the paper considers, the second best, that is so of any v in the linear model; the"
    " half-spaces of two labels can exclude both.",
    "T'_e scales T_e by what happens along one direction. It repairs that direction, and bounds no other: on five"
    " samples of MNIST that PGD takes beyond it, the remainder along the attack's own direction is about as large as"
    " the linear change or larger, and along the bound's less than half of it (benchmarks/README.md has the numbers"
    " and the command).",
    "Table 2 has the l-infinity radius 0.25 in its text; its entries for integrated gradients are those of Table 4 at"
    " 0.1, which is taken here for all three.",
    "The columns of Tables 3 and 4 for CIFAR-10 do not fit each other: T_e / sin(T_c), which is about the norm of"
    " the attribution, differs by a factor of three between them.",
)


def place(dataset: str) -> int:
    """Return the sort position of a data set on the page."""
    return list(DATASETS).index(dataset) if dataset in DATASETS else len(DATASETS)


def short(dataset: str) -> str:
    """Return a data set's name in headings and tables."""
    return title(dataset).partition(" (")[0]


def title(dataset: str) -> str:
    """Return a data set's name for readers."""
    return DATASETS.get(dataset, dataset)


def settings(config: Config, lines: pl.DataFrame, models: Iterable[Mapping[str, Any]]) -> str:
    """Describe the samples and attacks behind a run's numbers, beside the paper's."""
    return (
        f"{claims.samples(lines)} test samples a row (the paper: all); IG with {config.ig_steps} points"
        f" ({config.ig_rule.replace('_', ' ')}); {config.restarts} starts of PGD-{config.pgd_steps} (20 of PGD-20),"
        f" {config.ifia_restarts} of IFIA-{config.ifia_steps} (20 of IFIA-200), and {config.ascent_restarts} that climb"
        f" the deviation itself; top-k with k = {config.top_k}; singular values with a probability of"
        f" {config.confidence:g}; {networks(models)}."
    )


def networks(models: Iterable[Mapping[str, Any]]) -> str:
    """Describe the networks that were explained.

    Args:
      models: excerpts of cards, from :class:`experiments.paper_record.Record`.
    """
    names = {
        "conv_net": "four convolutions and three dense layers",
        "resnet18": "ResNet-18",
        "efficientnet_lite0": "EfficientNet-Lite0, every ReLU6 replaced by two softplus",
    }
    found = set()
    for model in models:
        about = model["network"]
        width = f" of width {about['width']}" if about["width"] else ""
        found.add(f"{names.get(about['name'], about['name'])}{width}, softplus of beta {about['beta']:g}")
    return "; ".join(sorted(found))


def note(number: str, lines: pl.DataFrame) -> str:
    """Return the notes that a reader of a table needs.

    Args:
      number: number of the table.
      lines: from :func:`experiments.comparison.beside`.
    """
    theirs = any(lines[name].count() for name in lines.columns if name.endswith("_published"))
    said = []
    if number == "2":
        said.append(
            "The paper's text has the l-infinity radius 0.25, its entries are those of Table 4 at 0.1."
            if theirs
            else "The paper's Table 2 is of CIFAR-10 alone: its numbers stand there."
        )
    elif not theirs:
        said.append("In the form of the paper's table, which does not have this data set.")
    if not lines["n"].count():
        models = ", ".join(published.NAMES[model] for model in lines["model"].unique(maintain_order=True))
        return " ".join([f"Nothing of ours: no {models} was trained. The numbers of the paper.", *said])
    products = not lines.filter(pl.col("norm") == "linf")["theorem_2"].count()
    if number == "4":
        said.append(
            "T_e is Corollary 1, by products: Theorem 2, which the paper has, needs the whole Jacobian (preset dense)."
            if products
            else "T_e is the smaller one of Theorem 2 and Corollary 1."
        )
        said.append(
            "Pixels that are zero in both maps are ties, which cap Kendall; *non-zero*, below, is without them."
        )
    if number == "5":
        said.append("r is a minimum over n samples, and falls as they grow in number; the paper's is over all.")
        said += ["For l-infinity it is to Corollary 1, the paper's to Theorem 2."] if products else []
    return " ".join(said)
