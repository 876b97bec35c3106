"""The evaluation of Wang and Kong 2023: published numbers, comparisons by hand, and a small run from table to page."""

import dataclasses
import itertools
import shlex
import shutil

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
import scipy.stats

from experiments import (
    claims,
    cli,
    comparison,
    paper,
    paper_figures,
    paper_record,
    paper_report,
    published,
    sweeps,
    table,
    throughput,
)
from experiments.record import StoreError, config_hash
from experiments.store import Store
from experiments.summary import LEVELS, per_sample

SMALL = ["--preset", "smoke", "--dataset", "digits", "--source", "zoo", "--defenses", "natural", "trades_igr"]
SMALL += ["--num-samples", "8", "--batch-size", "8", "--rank-samples", "3", "--beyond", "--l2", "--pictures", "0"]


def test_published_tables_are_whole():
    shapes = {number: len(published.table(number)) for number in published.TABLES}
    # 3 attributions x 2 norms; 6 models x 3 data sets; and x 3 radii x 2 norms.
    assert shapes == {2: 6, 3: 18, 4: 18, 5: 108}
    for number in published.TABLES:
        values = published.table(number)
        assert values.select(published.KEYS).is_unique().all()
        assert values.drop("corrected", strict=False).null_count().sum_horizontal().item() == 0
    with pytest.raises(ValueError, match="the table is 1; Wang and Kong 2023 have results in 2, 3, 4, 5"):
        published.table(1)


@pytest.mark.parametrize(
    ("number", "dataset", "norm", "epsilon", "model", "column", "value"),
    [
        (2, "cifar10", "linf", 0.1, "trades_igr", "bound_degrees", [27.09, 50.59, 35.0]),
        (3, "mnist", "l2", 0.05, "trades_igr", "paper_outside", [0.0132]),
        (3, "fashion_mnist", "l2", 0.05, "art", "corrected", [0.1411]),
        (4, "cifar10", "linf", 0.1, "adv_aat", "kendall", [0.5484]),
        (5, "mnist", "linf", 0.03, "art", "r", [0.0112]),
        (5, "cifar10", "linf", 8 / 255, "ig_norm", "r", [0.0145]),
    ],
)
def test_published_numbers_are_those_of_the_paper(number, dataset, norm, epsilon, model, column, value):
    lines = published.table(number).filter(dataset=dataset, norm=norm, model=model)
    assert lines.filter((pl.col("epsilon") - epsilon).abs() < 1e-9)[column].to_list() == value


def summary(**columns):
    """Lines of MNIST, l-infinity, like those of a run; what is not given does not matter."""
    models = list(published.MODELS[:3])
    values = {
        "model": models * 2,
        "norm": ["l2"] * 3 + ["linf"] * 3,
        "epsilon": [0.05] * 6,
        "attribution": ["integrated_gradients"] * 6,
        "dataset": ["mnist"] * 6,
    }
    cells = [cell for _, cells in comparison.TABLES.values() for cell in cells]
    others = ["paper_outside_corrected", "theorem_2_active", "kendall_nonzero", "theorem_2"]
    others += [f"{name}_bounded" for name in ("kendall", "kendall_nonzero", "paper_degrees")]
    given = {name: [0.5] * 6 for name in [*(cell.column for cell in cells), *others]}
    return pl.DataFrame(
        {
            **given,
            "n": [7] * 6,
            "attacks_not_finite": [0] * 6,
            "outside_count": [0] * 6,
            "attacks": [9] * 6,
            **values,
            **columns,
        }
    )


def test_ours_stand_beside_the_papers():
    lines = comparison.beside("4", summary(bound=[9.0] * 3 + [1.0, 3.0, 2.0]))
    assert lines["norm"].unique().to_list() == ["linf"]
    row = lines.filter(model="adv_aat").row(0, named=True)
    assert (row["bound"], row["bound_published"], row["kendall_published"]) == (2.0, 2.1992, 0.3791)
    # Theirs are 0.7752, 1.2046, 2.1992: of our order 1, 3, 2 that is half.
    orders = {order.cell.title: order for order in comparison.orderings("4", lines)}
    assert orders["T_e"].rho == pytest.approx(0.5)
    # Of three in a row nothing can be said, and ours are all the same: no order.
    assert orders["T_e"].held is None
    assert np.isnan(orders["Kendall"].rho)
    assert paper_report._order_rows([orders["Kendall"]])[1][-3:] == ["", "", "none: all are equal"]


def test_what_was_not_run_is_the_papers_alone():
    ours = summary(bound=[9.0] * 3 + [1.0, 3.0, 2.0])
    assert len(comparison.beside("4", ours)) == 3
    lines = comparison.beside("4", ours, whole=True)
    assert lines["model"].to_list() == list(published.MODELS)
    assert lines["epsilon"].to_list() == [0.05] * 6
    assert lines["n"].to_list() == [7, 7, 7, None, None, None]
    assert [order.models for order in comparison.orderings("4", lines)] == [3] * 5
    head, *rows = paper_report._rows(lines, comparison.TABLES["4"][1])[0]
    trades = dict(zip(head, rows[published.MODELS.index("trades")], strict=True))
    assert (trades["model"], trades["n"], trades["T_e"]) == ("TRADES", "", "")
    # As the paper prints them.
    assert rows[published.MODELS.index("adv_aat")][-2] == "(26.3000)"


def test_an_order_that_is_the_papers_is_held():
    models = list(published.MODELS)
    theirs = published.table(4).filter(dataset="mnist")
    bounds = dict(theirs.select("model", "bound").iter_rows())
    ours = pl.concat([summary().filter(pl.col("norm") == "linf").head(1)] * 6).with_columns(
        model=pl.Series(models), bound=pl.Series([2 * bounds[model] for model in models])
    )
    text = "not claimed: the paper's order of the defenses by T_e is ours, too (Table 4)"
    opposite = ours.with_columns(bound=1 / pl.col("bound"))
    same, reverse = (
        next(claim for claim in claims.claims(lines, {}) if claim.text == text) for lines in (ours, opposite)
    )
    assert (same.held, same.figure) == (True, "Spearman 1.00 over 6 defenses (p = 0.0028)")
    assert reverse.held is False


def test_claims_are_judged_by_the_figures():
    ours = summary(
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
    found = {claim.text: claim for claim in claims.claims(ours, dominant)}
    held = {text: claim.held for text, claim in found.items()}
    kendall = "a larger Kendall goes with a smaller T_c (Figure 2)"
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
        kendall: None,
        f"{kendall}, without pixels that are zero in both maps": None,
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
    assert found[kendall].figure == words
    assert found[cosine].figure.startswith("Spearman -1.00 over 3 defenses (p = 0.33); the paper's six: ")
    # Of attacks on three images nothing is said.
    assert {claim.text for claim in claims.claims(ours, dominant, attacked=False)} == {
        "Theorem 2 is tighter than Corollary 1",
        "P is diagonally dominant (Figure 1b)",
    }
    # Of an attack that came to no number nothing is known.
    without = ours.with_columns(attacks_not_finite=pl.when(model="art").then(0).otherwise(1))
    verdicts = {claim.text: claim.held for claim in claims.claims(without, {})}
    assert verdicts["r > 0 (l2, to T'_e)"] is None
    assert verdicts["none is outside of T'_e (l2)"] is False


def test_models_without_an_angle_have_no_order():
    ours = summary(bound_degrees=[1.0] * 3 + [20.0, None, None], dataset=["cifar10"] * 6, epsilon=[0.1] * 6)
    found = {claim.text: claim for claim in claims.claims(ours, {})}
    claim = found["a larger Kendall goes with a smaller T_c (Figure 2)"]
    assert claim.held is None
    assert claim.figure.startswith("no order of 3 defenses: all bounds of 2 are vacuous; the paper's six: -0.")
    # The paper's panel alone.
    assert len(paper_figures.kendall_against_angle(comparison.beside("4", ours, whole=True)).axes) == 1
    assert (
        paper_figures.kendall_against_angle(comparison.beside("4", ours.with_columns(dataset=pl.lit("digits")))) is None
    )
    head, *rows = paper_report._rows(comparison.beside("4", ours), comparison.TABLES["4"][1])[0]
    assert "vacuous" not in head
    assert [dict(zip(head, row, strict=True))["T_c, deg"] for row in rows] == ["20.00", "", ""]
    of_all = ours.with_columns(vacuous=pl.lit(1.0), bound_degrees=pl.lit(None, pl.Float64))
    _, *rows = paper_report._rows(comparison.beside("4", of_all), comparison.TABLES["4"][1])[0]
    assert all("vacuous" in row for row in rows)


def test_an_order_that_could_be_chance_is_undecided():
    ours = summary(kendall_bounded=[0.0] * 3 + [0.1, 0.3, 0.2], bound_degrees=[0.0] * 3 + [30.0, 20.0, 10.0])
    verdicts = {claim.text: claim.held for claim in claims.claims(ours, {})}
    assert verdicts["a larger Kendall goes with a smaller T_c (Figure 2)"] is None


def test_the_chance_of_an_order_is_counted_over_all_orders():
    a, b = [0.1, 0.4, 0.2, 0.5, 0.3], [1.0, 4.0, 3.0, 5.0, 2.0]
    rho, chance = comparison.spearman(pl.Series(a), pl.Series(b))
    every = [scipy.stats.spearmanr(a, order).statistic for order in itertools.permutations(b)]
    assert rho == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert chance == pytest.approx(np.mean(np.abs(every) > abs(rho) - 1e-9))
    # Five in reverse order: 2 of 120.
    assert comparison.spearman(pl.Series(a), -pl.Series(a)) == pytest.approx((-1, 2 / 120))


def test_a_column_of_the_papers_alone_says_what_it_is():
    lines = comparison.beside("4", summary(paper_degrees=[1.0] * 3 + [None] * 3))
    head = paper_report._rows(lines, comparison.TABLES["4"][1])[0][0]
    assert "T̂_c, deg (paper)" in head
    assert head[head.index("Kendall") + 1] == "(paper)"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("paper") / "digits-smoke"
    assert cli.main(["table", "4", *SMALL, "--output", str(directory)]) == 0
    return directory


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "digits-smoke")


def test_the_table_of_a_run(run, capsys):
    assert cli.main(["table", "4", *SMALL, "--output", str(run)]) == 0
    text = capsys.readouterr().out
    rows = Store(run, None).rows()
    bounds = rows.filter(kind="bound", model="trades_igr")
    mean = bounds.filter(method="semidefinite_box")["euclidean"].mean()
    assert f"| {mean:.4f} |" in text
    assert "Table 4" in text
    assert "Beyond Table 4" in text


def test_bounds_of_a_run_are_ordered(run):
    bounds = Store(run, None).rows().filter(kind="bound")
    wide = bounds.pivot("method", index=["model", "position"], values="euclidean")
    slack = 1 + 1e-5
    assert (wide["semidefinite"] <= wide["smallest"] * slack).all()
    assert (wide["semidefinite_box"] <= wide["semidefinite"] * slack).all()
    attained = bounds.pivot("method", index=["model", "position"], values="euclidean_attained")
    assert (attained["semidefinite"] <= wide["semidefinite"] * slack).all()


def test_no_attack_goes_below_guaranteed_ranks_where_it_is_nearly_linear(run):
    rows = Store(run, None).rows()
    guaranteed = rows.filter(pl.col("kendall_guaranteed").is_finite())
    assert guaranteed.group_by("model").len()["len"].to_list() == [3, 3]
    limits = guaranteed.select("model", "position", "remainder", *(f"{n}_guaranteed" for n in ("kendall", "top_k")))
    attacks = rows.filter(kind="attack").select("model", "position", "kendall", "top_k")
    both = attacks.join(limits, on=["model", "position"]).filter(pl.col("remainder") < 0.05)
    assert len(both)
    assert (both["kendall"] >= both["kendall_guaranteed"] - 1e-6).all()
    assert (both["top_k"] >= both["top_k_guaranteed"] - 1e-6).all()


def test_the_report_has_everything_that_has_results(copy, tmp_path):
    command = ["--output", str(tmp_path / "report"), "--runs", str(tmp_path)]
    # A figure that has been computed, and a table of another run that has not.
    weights = {model: about["weights"] for model, about in paper_record.collect(Store(copy, None)).models.items()}
    pl.DataFrame(
        [
            {"model": model, "weights": weights[model], "n": 3, "epsilon": radius, "remainder": radius}
            for model in ("natural", "trades_igr")
            for radius in (0.1, 0.2)
            for _ in range(3)
        ]
    ).write_csv(copy / "linearity.csv")
    assert cli.main(["report", *command]) == 0
    markdown = (tmp_path / "report" / "report.md").read_text()
    page = (tmp_path / "report" / "index.html").read_text()
    for words in ("Table 4, digits, preset smoke.", "Figure 2.", "Appendix B", "The paper's claims", "semidefinite"):
        assert words in markdown
    assert page.count("data:image/png;base64,") == len(list((tmp_path / "report" / "figures").glob("*.png"))) == 3
    assert "Table 3, digits" not in markdown
    table = pl.read_csv(tmp_path / "report" / "tables" / "digits-smoke.csv")
    assert sorted(table["model"]) == ["natural", "trades_igr"]


def test_the_report_is_written_again_without_the_rows(copy, tmp_path):
    command = ["report", "--output", str(tmp_path / "report"), "--runs", str(tmp_path)]
    assert cli.main(command) == 0
    texts = [(tmp_path / "report" / name).read_text() for name in ("report.md", "index.html")]
    shutil.rmtree(copy)
    assert cli.main(command) == 0
    assert [(tmp_path / "report" / name).read_text() for name in ("report.md", "index.html")] == texts
    # One batch a cell: nothing to take a rate from, and a column without a value.
    table = tmp_path / "report" / "tables" / "digits-smoke.csv"
    pl.read_csv(table).with_columns(pl.lit(None).alias("bound_seconds")).write_csv(table)
    assert cli.main(command) == 0
    (tmp_path / "report" / "tables" / "digits-smoke.json").unlink()
    assert cli.main(command) == 2


def test_figures_are_not_replaced_by_those_of_fewer_models(copy, tmp_path, short):
    command = ["report", "--output", str(tmp_path / "report"), "--runs", str(tmp_path)]
    assert cli.main(["figure", "1b", *SMALL, "--output", str(copy)]) == 0
    assert cli.main(command) == 0
    figures = [tmp_path / "report" / "figures" / f"digits-smoke-{name}.png" for name in ("gaps", "1b")]
    drawn = [figure.read_bytes() for figure in figures]
    figures[1].write_bytes(b"of all models")
    shutil.rmtree(copy / "rows" / "trades_igr")
    values = pl.read_csv(copy / "1b.csv")
    values.filter(model="natural").write_csv(copy / "1b.csv")
    assert cli.main(command) == 0
    # Gaps are kept, and drawn again with those of both.
    assert [figure.read_bytes() for figure in figures] == [drawn[0], b"of all models"]
    values.write_csv(copy / "1b.csv")
    assert cli.main(command) == 0
    assert figures[1].read_bytes() == drawn[1]


def test_the_gaps_of_a_run_are_those_of_its_rows(run):
    samples = per_sample(Store(run, None).rows()).filter(model="natural")
    for column, attack in (("gap_quantiles", "paper"), ("strongest_gap_quantiles", "strongest")):
        gaps = np.sort(1 - samples[attack].to_numpy() / samples["euclidean"].to_numpy())
        (words,) = paper_record.collect(Store(run, None)).lines.filter(model="natural")[column]
        expected = np.quantile(gaps, LEVELS, method="nearest")
        np.testing.assert_allclose(np.array(words.split(), float), expected, rtol=1e-3, atol=1e-6)


def test_cells_of_another_machine_are_added(run):
    record = paper_record.collect(Store(run, None))
    model = pl.col("model")
    few = record._replace(lines=record.lines.filter(model == "natural").with_columns(n=pl.lit(4, pl.UInt32)))
    other = record._replace(lines=record.lines.with_columns(pl.lit("elsewhere").alias("device")))
    # The cell of more samples stays, whichever comes first; of equal ones the later.
    for old, new in ((record, few), (few, record)):
        assert paper_record.merge(old, new).lines["n"].to_list() == [8, 8]
    assert paper_record.merge(record, other).lines["device"].to_list() == ["elsewhere"] * 2
    only = other._replace(lines=other.lines.filter(model == "trades_igr"))
    merged = paper_record.merge(few, only).lines
    assert merged.select("model", "n").rows() == [("natural", 4), ("trades_igr", 8)]
    with pytest.raises(StoreError, match="of another configuration"):
        paper_record.merge(record._replace(hash="0" * 16), record)
    weights = {"natural": {**record.models["natural"], "weights": "other"}}
    with pytest.raises(StoreError, match="other weights of natural"):
        paper_record.merge(record._replace(models=weights), record)


@pytest.mark.parametrize("more", [["--beyond", "--l2"], ["--training.steps", "3", "--linf", "0.02", "0.03"]])
def test_the_printed_command_makes_the_same_run(run, more):
    record = paper_record.collect(Store(run, None))
    given = [*SMALL[: SMALL.index("--num-samples")], "--beta", "20", *more]
    record = record._replace(config=cli.parse_evaluate(given, "table", paper.directory)[1])
    (command,) = paper_record.commands(record, "table", "4", record.lines)
    printed = shlex.split(command)
    assert printed[:5] == ["python", "-m", "experiments", "table", "4"]
    preset, config = cli.parse_evaluate(printed[5:], "table", paper.directory)
    assert config_hash(config) == config_hash(record.config)
    assert (preset, config.defenses, config.num_samples) == ("smoke", ("natural", "trades_igr"), 8)


def test_samples_of_each_number_have_a_command(run):
    record = paper_record.collect(Store(run, None))
    few = record.lines.with_columns(n=pl.when(pl.col("model") == "natural").then(8).otherwise(5))
    first, second = paper_record.commands(record, "table", "4", few)
    assert first.endswith("--defenses natural --num-samples 8")
    assert second.endswith("--defenses trades_igr --num-samples 5")
    assert paper_record.commands(record, "table", "4", few.clear()) == []
    # Sweeps have their own samples; of all samples each network gets another number right.
    assert "--num-samples" not in "".join(paper_record.commands(record, "figure", "linearity", few))
    every = record._replace(config=dataclasses.replace(record.config, num_samples=None))
    (command,) = paper_record.commands(every, "table", "4", few)
    assert command.endswith("--num-samples None")
    assert cli.parse_evaluate(shlex.split(command)[5:], "table", paper.directory)[1].num_samples is None


def test_the_diagonal_of_a_jacobian_that_is_one_dominates(copy, monkeypatch):
    arguments = ["figure", "1b", *SMALL, "--output", str(copy)]
    assert cli.main(arguments) == 0
    found = sweeps.dominance(Store(copy, None))
    assert sorted(found) == ["natural", "trades_igr"]
    assert all(0 <= value["share"] < 1 and value["n"] == 8 for value in found.values())
    # A linear map of the input has a diagonal Jacobian.
    (copy / "1b.csv").unlink()

    def linear(_, x, __):
        return x * jnp.arange(x.size).reshape(x.shape)

    monkeypatch.setattr(sweeps, "attribution", lambda *_: linear)
    assert cli.main(arguments) == 0
    assert sweeps.dominance(Store(copy, None)) == {model: {"share": 1.0, "n": 8} for model in found}


@pytest.fixture
def short(monkeypatch):
    """For tests of which lines a figure has: a map of each network whose Jacobian is compiled at once."""
    monkeypatch.setattr(sweeps, "attribution", lambda *_: lambda logits_fn, x, label: x * logits_fn(x)[label])


def test_models_are_added_to_a_figure(copy, tmp_path, short):
    arguments = ["figure", "1b", *SMALL, "--output", str(copy)]
    assert cli.main([*arguments, "--defenses", "natural"]) == 0
    alone = pl.read_csv(copy / "1b.csv")
    assert alone["model"].unique().to_list() == ["natural"]
    assert alone["n"].unique().to_list() == [8]
    assert cli.main(arguments) == 0
    both = sweeps.read("1b", Store(copy, None))
    assert both.filter(model="natural").equals(alone)
    assert sorted(both["model"].unique()) == ["natural", "trades_igr"]
    # What was of other weights, or of fewer samples, is made again.
    other = both.with_columns(
        weights=pl.when(model="natural").then(pl.lit("other")).otherwise("weights"),
        n=pl.when(model="natural").then("n").otherwise(4),
    )
    other.write_csv(copy / "1b.csv")
    assert sweeps.read("1b", Store(copy, None))["model"].unique().to_list() == ["trades_igr"]
    assert cli.main(arguments) == 0
    assert sweeps.read("1b", Store(copy, None)).sort(both.columns).equals(both.sort(both.columns))
    # Of the figure alone a report has nothing; where it has the rows from before, the figure is drawn.
    report = ["report", "--runs", str(tmp_path), "--output", str(tmp_path / "report")]
    assert cli.main(report) == 0
    drawn = tmp_path / "report" / "figures" / "digits-smoke-1b.png"
    drawn.unlink()
    shutil.rmtree(copy / "rows")
    assert cli.main(report) == 0
    assert drawn.exists()
    shutil.rmtree(tmp_path / "report")
    assert cli.main(report) == 2


def test_samples_are_added_to_a_run(copy):
    assert cli.main(["table", "4", *SMALL, "--num-samples", "10", "--output", str(copy)]) == 0
    rows = Store(copy, None).rows()
    assert rows.filter(kind="bound")["position"].unique().sort().to_list() == list(range(10))
    assert len(list((copy / "rows").rglob("*.parquet"))) == 4
    # Fewer are there already.
    assert cli.main(["table", "4", *SMALL, "--output", str(copy)]) == 0


def test_a_damaged_part_is_left_out_when_told_alone(copy, tmp_path, capsys):
    (part,) = (copy / "rows" / "natural" / "integrated_gradients" / "linf").glob("*.parquet")
    part.write_bytes(b"not Parquet")
    again = ["table", "4", *SMALL, "--output", str(copy)]
    report = ["report", "--runs", str(tmp_path), "--output", str(tmp_path / "report")]
    for command in (again, report):
        assert cli.main(command) == 2
        message = capsys.readouterr().err
        assert str(part) in message
        assert "--skip-damaged" in message
    assert cli.main([*again, "--skip-damaged"]) == 0
    assert "| natural |" not in capsys.readouterr().out
    assert cli.main([*report, "--skip-damaged"]) == 0
    assert part.read_bytes() == b"not Parquet"
    for other in (copy / "rows").rglob("*.parquet"):
        other.write_bytes(b"not Parquet")
    capsys.readouterr()
    assert cli.main([*report, "--skip-damaged"]) == 2
    assert "all of its files are damaged" in capsys.readouterr().err


def test_which_tables_there_are(capsys):
    assert cli.main(["table", "--help"]) == 0
    words = capsys.readouterr().out
    assert "{2,3,4,5}" in words
    assert "NAME --help" in words


def test_what_there_is_not(tmp_path, capsys):
    output = ["--output", str(tmp_path / "none")]
    assert cli.main(["table", "3", "--dataset", "digits", "--preset", "cpu", *output]) == 2
    assert "no trained network digits/adversarial" in capsys.readouterr().err
    assert cli.main(["table", "2", *SMALL[:-1], "0", "--defenses", "natural", *output]) == 2
    assert "table 2 is about trades_igr: add it to `--defenses`" in capsys.readouterr().err
    assert cli.main(["report", "--runs", str(tmp_path), "--output", str(tmp_path / "report")]) == 2
    assert "no run with rows yet" in capsys.readouterr().err


def test_measured_rates_give_the_hours_of_the_papers_preset(run):
    record = paper_record.collect(Store(run, None))
    ours = record.lines
    # Where all batches had a compilation among them, nothing is claimed.
    nothing = pl.lit(None, pl.Float64)
    unknown = ours.with_columns(bound_seconds=nothing, attack_seconds=nothing)
    assert throughput.costs(record._replace(lines=unknown)) == []
    ours = ours.with_columns(bound_seconds=pl.lit(0.5), attack_seconds=pl.lit(0.01))
    # The paper has no digits: nothing to scale to.
    ((*_, bounds, attacks, factor, hours, own),) = throughput.costs(record._replace(lines=ours))
    assert (bounds, attacks, factor, hours, own) == ("2", "100", "", "", "")
    # Two gradients for each of 200 steps and 50 points of 40 climbs and 20 steps of 20 others; here 2 points and steps.
    of_mnist = [
        record._replace(
            lines=ours.with_columns(norm=pl.lit(norm), attribution=pl.lit(attribution)),
            config=dataclasses.replace(record.config, dataset="mnist"),
        )
        for norm, attribution in (
            ("linf", "integrated_gradients"),
            ("l2", "integrated_gradients"),
            ("linf", "saliency"),
        )
    ]
    (path,), (push,), (map_of_one,) = map(throughput.costs, of_mnist)
    for row, points, here in ((path, 50, 2), (push, 50, 2), (map_of_one, 1, 1)):
        average, of_run = (40 * 200 * points * 2 + 20 * 20) / 60, (4 * 2 * here * 2 + 2 * 2) / 6
        assert row[-3] == f"{average / of_run:.0f}"
        hours, own = (float(words.replace(",", "")) for words in row[-2:])
        assert hours == pytest.approx(10_000 * 7 * 3 * 60 * average / of_run / 100 / 3600, abs=0.51)
        # Six models, three radii, 20 attacks of the norm: PGD-20 or IFIA-200.
        steps = 20 if row is push else 200 * points * 2
        assert own == pytest.approx(10_000 * 6 * 3 * 20 * steps / of_run / 100 / 3600, abs=0.51)


@pytest.mark.parametrize(
    ("epsilon", "words"),
    [(0.1, "0.1"), (0.05, "0.05"), (4 / 255, "4/255"), (0.0156862746, "4/255"), (1 / 255, "1/255")],
)
def test_a_radius_as_people_write_it(epsilon, words):
    assert table.radius(epsilon) == words
