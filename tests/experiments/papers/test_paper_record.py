"""What a report keeps of a run: cells of several machines, and the commands that make it again."""

import dataclasses
import shlex

import numpy as np
import polars as pl
import pytest
from small_papers import PAPER, SMALL, stored

from experiments import cli
from experiments.papers import record as records
from jaxattr.audit.run_directory import StoreError, config_hash
from jaxattr.audit.summary import LEVELS, per_sample


def directory(dataset, preset):
    return PAPER.runs / f"{dataset}-{preset}"


@pytest.fixture(scope="module")
def kept(run):
    return records.collect(PAPER, stored(run))


def test_the_gaps_of_a_run_are_those_of_its_rows(run, kept):
    samples = per_sample(stored(run).rows()).filter(model="natural")
    for column, attack in (("gap_quantiles", "paper"), ("strongest_gap_quantiles", "strongest")):
        gaps = np.sort(1 - samples[attack].to_numpy() / samples["euclidean"].to_numpy())
        (words,) = kept.lines.filter(model="natural")[column]
        expected = np.quantile(gaps, LEVELS, method="nearest")
        np.testing.assert_allclose(np.array(words.split(), float), expected, rtol=1e-3, atol=1e-6)


def test_cells_of_another_machine_are_added(kept):
    model = pl.col("model")
    few = kept._replace(lines=kept.lines.filter(model == "natural").with_columns(n=pl.lit(4, pl.UInt32)))
    other = kept._replace(lines=kept.lines.with_columns(pl.lit("elsewhere").alias("device")))
    # The cell of more samples stays, whichever comes first; of equal ones the later.
    for old, new in ((kept, few), (few, kept)):
        assert records.merge(PAPER, old, new).lines["n"].to_list() == [8, 8]
    assert records.merge(PAPER, kept, other).lines["device"].to_list() == ["elsewhere"] * 2
    only = other._replace(lines=other.lines.filter(model == "trades_igr"))
    merged = records.merge(PAPER, few, only).lines
    assert merged.select("model", "n").rows() == [("natural", 4), ("trades_igr", 8)]
    assert records.merge(PAPER, None, kept) is kept
    cell = "integrated_gradients/linf"
    changed = {cell: {**kept.identities[cell], "attribution": "integrated_gradients(num_steps=3)"}}
    words = r"of another configuration \(integrated_gradients/linf: attribution: .*\(num_steps=2\) -> .*\(num_steps=3\)"
    with pytest.raises(StoreError, match=words):
        records.merge(PAPER, kept, kept._replace(identities=changed))
    weights = {"natural": {**kept.models["natural"], "weights": "other"}}
    with pytest.raises(StoreError, match="other weights of natural"):
        records.merge(PAPER, kept._replace(models=weights), kept)


@pytest.mark.parametrize(
    "more",
    [
        ["--bounds", "norm_relaxation", "--l2"],
        ["--training.steps", "3", "--linf", "0.02", "0.03"],
        ["--attributions", "integrated_gradients(num_steps=3, rule='left')", "mine=saliency"],
    ],
)
def test_the_printed_command_makes_the_same_run(kept, more):
    given = [*SMALL[: SMALL.index("--num-samples")], "--beta", "20", *more]
    of = kept._replace(config=cli.parse_audit(given, directory)[1])
    written = shlex.join(["python", "-m", "experiments", "paper", "wang2023", "table", "4", *given])
    of = of._replace(arguments=records._arguments(written))
    (command,) = records.commands(PAPER, of, "table", "4", of.lines)
    printed = shlex.split(command)
    assert printed[:7] == ["python", "-m", "experiments", "paper", "wang2023", "table", "4"]
    preset, config = cli.parse_audit(printed[7:], directory)
    assert config_hash(config) == config_hash(of.config)
    assert dataclasses.replace(config, num_samples=None) == dataclasses.replace(of.config, num_samples=None)
    assert (preset, config.defenses, config.num_samples) == ("smoke", ("natural", "trades_igr"), 8)


def test_samples_of_each_number_have_a_command(kept):
    few = kept.lines.with_columns(n=pl.when(pl.col("model") == "natural").then(8).otherwise(5))
    first, second = records.commands(PAPER, kept, "table", "4", few)
    assert first.endswith("--defenses natural --num-samples 8")
    assert second.endswith("--defenses trades_igr --num-samples 5")
    assert records.commands(PAPER, kept, "table", "4", few.clear()) == []
    # Values of a figure have their own samples; of all samples each network gets another number right.
    assert "--num-samples" not in "".join(records.commands(PAPER, kept, "figure", "linearity", few))
    every = kept._replace(config=dataclasses.replace(kept.config, num_samples=None))
    (command,) = records.commands(PAPER, every, "table", "4", few)
    assert command.endswith("--num-samples None")
    assert cli.parse_audit(shlex.split(command)[7:], directory)[1].num_samples is None
