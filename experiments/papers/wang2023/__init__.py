"""Run the evaluation of Wang and Kong 2023 again: Tables 2 to 5, Figures 1b and 2, the subjects of Appendices B and D.

"A Practical Upper Bound for the Worst-Case Attribution Deviations", CVPR 2023.

    python -m experiments paper wang2023 table 3 --dataset mnist --preset cpu
"""

from pathlib import Path

from experiments.papers.paper import Needs, Paper, PaperFigure
from experiments.papers.wang2023 import figures, values
from experiments.papers.wang2023.claims import MODELS, claims
from experiments.papers.wang2023.settings import settings
from experiments.papers.wang2023.tables import BOTH, IG, TABLES
from experiments.papers.wang2023.throughput import throughput
from experiments.papers.wang2023.violations import violations

_OF_IG = Needs((IG,), BOTH)

PAPER = Paper(
    name="wang2023",
    cite="Wang and Kong 2023",
    title="A practical upper bound for the worst-case attribution deviations: the evaluation, run again",
    directory=Path(__file__).parent,
    models=dict(zip(MODELS, ("AT", "IG-NORM", "AdvAAT", "ART", "TRADES", "TRADES+IGR"), strict=True)),
    # The paper's data sets, and those of its Appendix D.3 last.
    datasets={
        "mnist": "MNIST",
        "fashion_mnist": "Fashion-MNIST",
        "cifar10": "CIFAR-10",
        "cifar10_jpeg": "CIFAR-10 (a copy whose images were compressed as JPEG)",
        "oxford_flowers12": "Flower (Appendix D.3; 12 species)",
        "photographs": "ImageNet (Appendix D.3; a published network on two photographs)",
        "digits": "digits (not in the paper)",
    },
    same_data={"cifar10_jpeg": "cifar10"},
    tables=TABLES,
    figures={
        "2": PaperFigure(
            "Figure 2. Kendall under attack against the bound on the angle",
            TABLES["4"].of,
            figures.kendall_against_angle,
        ),
        "gaps": PaperFigure("Gaps between bound and attack (Appendix D)", _OF_IG, figures.gaps),
        "1b": PaperFigure(
            "Figure 1b. The Jacobian of integrated gradients at one sample", _OF_IG, figures.jacobian, values.jacobian
        ),
        "linearity": PaperFigure(
            "How linear attributions are (Appendix B)", _OF_IG, figures.linearity, values.linearity
        ),
        "beta": PaperFigure("The same weights with other softplus", _OF_IG, figures.sharpness, values.beta),
    },
    claims=claims,
    of_run=violations,
    of_all=throughput,
    keeps=values.kept,
    settings=settings,
)
