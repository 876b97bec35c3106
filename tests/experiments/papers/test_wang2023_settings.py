"""What the page of Wang and Kong 2023 says of a run: also of one with other methods than the paper's."""

import dataclasses

import pytest
from small_papers import PAPER, lines, record

import jaxattr as ja
from experiments.papers import report
from experiments.papers.wang2023.settings import settings
from experiments.papers.wang2023.throughput import throughput
from jaxattr.audit.columns import norm_in_words

MODELS = {"art": {"network": {"name": "conv_net", "width": None, "beta": 10.0}}}


def with_options(**options):
    kept = record()._replace(models=MODELS)
    return kept._replace(config=dataclasses.replace(kept.config, **options))


def said(of):
    return PAPER.words("settings", **settings(PAPER, of))


def test_the_attacks_of_a_preset_stand_beside_the_papers():
    assert said(with_options()) == (
        "Preset cpu: 7 test samples a row (the paper: all); IG with 50 points (midpoint); 5 starts of PGD-20 (20 of"
        " PGD-20), 5 of IFIA-200 (20 of IFIA-200), and 5 that climb the deviation itself; top-k with k = 100; singular"
        " values with a probability of 0.999; four convolutions and three dense layers, softplus of beta 10. On one"
        " core."
    )


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        ({"attributions": ("saliency",)}, "(the paper: all); 5 starts", "IG"),
        ({"attributions": ("integrated_gradients=saliency",)}, "(the paper: all); 5 starts", "IG"),
        ({"bounds": ("norm_relaxation",)}, "k = 100; four", "probability"),
        ({"attacks": ("pgd(num_steps=3)",)}, "; attacks pgd (1 x pgd(num_steps=3)); top-k", "IFIA"),
        ({"attacks": ("pgd=restarts(ifia(num_steps=3), 2)",)}, "; attacks pgd (2 x ifia(num_steps=3)); top-k", "PGD"),
    ],
)
def test_methods_that_a_run_lacks_are_left_out(options, there, absent):
    words = said(with_options(**options))
    assert there in words
    assert absent not in words


def test_the_note_of_table_4_says_which_bound_it_is():
    def note(**columns):
        joined = report.compare.join_published(PAPER, "4", lines(**columns))
        return report._note(PAPER, "4", joined)

    assert "T_e is neither Theorem 2 nor Corollary 1" in note(theorem_2=[None] * 6)
    assert "T_e is Corollary 1, by products" in note(theorem_2=[None] * 6, corollary_1=[0.5] * 6)
    assert "T_e is the smaller one of Theorem 2 and Corollary 1" in note(corollary_1=[0.5] * 6)


def test_rates_of_attacks_that_do_not_say_their_gradients_are_not_scaled(monkeypatch):
    """A plain function of a stranger's is such an attack; the measured rates are there all the same."""

    def plain(ball, attribute):
        return lambda *of: of

    monkeypatch.setitem(ja.attacks.REGISTRY, "plain", plain)
    measured = lines(bound_seconds=[0.5] * 6, attack_seconds=[0.01] * 6)
    kept = with_options(attacks=("pgd", "plain"))._replace(lines=measured)
    (table,) = throughput(PAPER, [kept])
    assert [row[2] for row in table.rows] == ["l2", norm_in_words("linf")]
    assert all(row[4:] == ("2", "100", "", "", "") for row in table.rows)
    (table,) = throughput(PAPER, [kept._replace(config=with_options().config)])
    assert all(cell for row in table.rows for cell in row)
