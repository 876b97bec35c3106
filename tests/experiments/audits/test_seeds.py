"""Means and standard errors over seeds: by hand, and of two small runs."""

import polars as pl

from experiments import cli
from experiments.audits import seeds
from experiments.audits.config import Config
from jaxattr.audit.store import Store

COLUMNS = [column.name for column in seeds.COLUMNS]


def lines(model, **columns):
    """One line per seed; columns that are not given do not matter."""
    count = len(next(iter(columns.values())))
    constant = {"attribution": "saliency", "ball": "l2 0.1", "model": model, "n": 10}
    others = {name: [0.0] * count for name in COLUMNS if name not in columns}
    return (
        pl.DataFrame({"seed": list(range(count)), **columns, **others})
        .with_columns(**{name: pl.lit(value) for name, value in constant.items()})
        .select("seed", *constant, *COLUMNS)
    )


def test_differences_are_taken_seed_by_seed():
    natural = lines("natural", bound=[1.0, 2.0, 3.0], kendall=[0.1, 0.2, 0.3], bound_degrees_all=[10.0, 10.0, 13.0])
    # By 0.5 smaller for every seed, although the seeds differ by more.
    trades = lines("trades", bound=[0.5, 1.5, 2.5], kendall=[0.0, 0.1, 0.1], bound_degrees_all=[9.0, 11.0, 13.0])
    text = seeds.markdown(pl.concat([trades, natural]))
    # Standard deviation 1 over three seeds: 1 / sqrt(3).
    assert "2.0000 (0.5774)" in text
    assert "1.5000 (0.5774)" in text
    last = text.strip().splitlines()[-1]
    # -0.1, -0.1 and -0.2: mean -0.1333, standard deviation 0.05774.
    assert last == "| trades | -0.5000 (0.0000), held | 0.0 (0.6), undecided | -0.133 (0.033), not held |"


def test_two_seeds_of_a_small_run(tmp_path, capsys):
    command = ["seeds", "--seeds", "2", "--preset", "smoke", "--num-samples", "8", "--output", str(tmp_path / "run")]
    command += ["--model", "mlp", "--defenses", "natural", "--l2", "0.05", "--linf"]
    assert cli.main(command) == 0
    values = pl.read_csv(tmp_path / "run" / "seeds.csv")
    assert values["seed"].to_list() == [0, 1]
    stores = [Store(tmp_path / "run" / f"seed-{seed}", Config) for seed in (0, 1)]
    assert [store.config.training.seed for store in stores] == [0, 1]
    assert stores[0].rows()["weights"][0] != stores[1].rows()["weights"][0]
    mean = sum(seeds.of_store(store)["bound"][0] for store in stores) / 2
    assert f"| {mean:.4f} (" in capsys.readouterr().out


def test_one_seed_has_no_error(capsys):
    assert cli.main(["seeds", "--seeds", "1"]) == 2
    assert "`seeds` must be at least 2, got 1" in capsys.readouterr().err
