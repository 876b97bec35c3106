"""Hours of the preset `paper`, and of the attacks of Wang and Kong 2023, from measured rates and counts by hand."""

import dataclasses

import polars as pl
import pytest
from small_papers import PAPER, stored

from experiments.papers import record as records
from experiments.papers.wang2023.throughput import throughput


def rows(*of):
    (table,) = throughput(PAPER, of)
    return table.rows


@pytest.fixture(scope="module")
def kept(run):
    return records.collect(PAPER, stored(run))


def test_measured_rates_give_the_hours_of_the_papers_preset(kept):
    ours = kept.lines
    # Where all batches had a compilation among them, nothing is claimed.
    nothing = pl.lit(None, pl.Float64)
    unknown = ours.with_columns(bound_seconds=nothing, attack_seconds=nothing)
    assert rows(kept._replace(lines=unknown)) == ()
    ours = ours.with_columns(bound_seconds=pl.lit(0.5), attack_seconds=pl.lit(0.01))
    # The paper has no digits: nothing to scale to.
    ((*_, bounds, attacks, factor, hours, own),) = rows(kept._replace(lines=ours))
    assert (bounds, attacks, factor, hours, own) == ("2", "100", "", "", "")
    # Two gradients for each of 200 steps and 50 points of 40 climbs and 20 steps of 20 others; here 2 points and steps.
    of_mnist = [
        kept._replace(
            lines=ours.with_columns(norm=pl.lit(norm), attribution=pl.lit(attribution)),
            config=dataclasses.replace(kept.config, dataset="mnist"),
        )
        for norm, attribution in (
            ("linf", "integrated_gradients"),
            ("l2", "integrated_gradients"),
            ("linf", "saliency"),
        )
    ]
    (path,), (push,), (map_of_one,) = map(rows, of_mnist)
    for row, points, here in ((path, 50, 2), (push, 50, 2), (map_of_one, 1, 1)):
        average, of_run = (40 * 200 * points * 2 + 20 * 20) / 60, (4 * 2 * here * 2 + 2 * 2) / 6
        assert row[-3] == f"{average / of_run:.0f}"
        hours, own = (float(words.replace(",", "")) for words in row[-2:])
        assert hours == pytest.approx(10_000 * 7 * 3 * 60 * average / of_run / 100 / 3600, abs=0.51)
        # Six models, three radii, 20 attacks of the norm: PGD-20 or IFIA-200.
        steps = 20 if row is push else 200 * points * 2
        assert own == pytest.approx(10_000 * 6 * 3 * 20 * steps / of_run / 100 / 3600, abs=0.51)
