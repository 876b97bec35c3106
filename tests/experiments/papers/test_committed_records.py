"""The records that are kept in the repository are extended by later versions: by cells, options and columns."""

import dataclasses
import inspect
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from small_papers import RESULTS

import jaxattr as ja
from experiments import papers
from experiments.audits.config import resolve
from experiments.audits.presets import preset
from experiments.papers import record as records
from jaxattr.audit import spec
from jaxattr.audit.run_directory import StoreError, config_hash

KEPT = {
    (name, path.stem): RESULTS / name
    for name in papers.PAPERS
    for path in sorted((RESULTS / name / "tables").glob("*.csv"))
}
ORDER = ["model", "norm", "epsilon", "attribution"]
every_record = pytest.mark.parametrize(("paper", "name"), KEPT, ids=lambda value: value)


def read(paper, name):
    return records.read(KEPT[paper, name])[name]


def identities(config, cells):
    """Identities of cells ``ATTRIBUTION/NORM`` by a configuration; attributions that it lacks are added."""
    config = spec.with_attributions(config, dict.fromkeys(cell.partition("/")[0] for cell in cells))
    return {cell: spec.identity(config, *cell.split("/")) for cell in cells}


def test_there_are_records():
    assert len(KEPT) >= 6


@every_record
def test_the_identity_of_every_cell_is_that_of_its_configuration(paper, name):
    kept = read(paper, name)
    cells = {f"{attribution}/{norm}" for attribution, norm in kept.lines.select("attribution", "norm").iter_rows()}
    assert cells == set(kept.identities)
    assert identities(kept.config, kept.identities) == kept.identities


@every_record
def test_the_preset_of_the_name_makes_the_same_cells(paper, name):
    kept = read(paper, name)
    config = resolve(preset(kept.preset, kept.config.dataset), kept.preset)
    assert identities(config, kept.identities) == kept.identities
    assert config_hash(config) == config_hash(kept.config)


@every_record
def test_a_cell_of_another_attribution_is_added_and_the_others_stay(paper, name):
    """Its lines lack one column and have another, as those of another version do."""
    kept = read(paper, name)
    one = kept.lines.filter(pl.col("model") == kept.lines["model"][0], pl.col("norm") == "l2")
    lines = one.with_columns(attribution=pl.lit("ig20"), ssim=pl.lit(0.5)).drop("spearman")
    more = (*kept.config.attributions, "ig20=integrated_gradients(num_steps=20)")
    config = dataclasses.replace(kept.config, attributions=more)
    cells = identities(config, [*kept.identities, "ig20/l2"])
    new = kept._replace(lines=lines, config=config, identities=cells)
    both = records.merge(papers.get(paper), kept, new)
    of_new = pl.col("attribution") == "ig20"
    assert_frame_equal(
        both.lines.filter(~of_new).select(kept.lines.columns).sort(ORDER), kept.lines.sort(ORDER), check_dtypes=False
    )
    assert both.lines.filter(of_new)["ssim"].to_list() == [0.5] * len(lines)
    assert both.lines.filter(of_new)["spearman"].null_count() == len(lines)
    assert both.lines.filter(~of_new)["ssim"].null_count() == len(kept.lines)
    assert {cell: both.identities[cell] for cell in kept.identities} == kept.identities
    assert set(both.identities) == {*kept.identities, "ig20/l2"}
    # Cells of other methods are never mixed.
    cell = next(iter(kept.identities))
    other = {cell: {**kept.identities[cell], "seed": 7}}
    with pytest.raises(StoreError, match=rf"of another configuration \({cell}: seed: 0 -> 7\)"):
        records.merge(papers.get(paper), kept, new._replace(identities=other))


def later(constructor):
    """The constructor as a later version may have it: with one option more, and its default."""
    signature = inspect.signature(constructor)
    option = inspect.Parameter("smoothing", inspect.Parameter.KEYWORD_ONLY, default=4)

    def build(*args, smoothing=4, **kwargs):
        assert smoothing == 4
        return constructor(*args, **kwargs)

    build.__name__ = constructor.__name__
    build.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])
    return build


def test_an_option_that_comes_later_changes_no_identity_unless_it_is_used(monkeypatch):
    kept = {key: read(*key) for key in KEPT}
    for registry in (ja.attributions.REGISTRY, ja.bounds.REGISTRY, ja.attacks.REGISTRY):
        for name, constructor in list(registry.items()):
            monkeypatch.setitem(registry, name, later(constructor))
    for record in kept.values():
        assert identities(record.config, record.identities) == record.identities
    record = next(iter(kept.values()))
    used = record.config.attributions[0].replace(")", ", smoothing=5)")
    changed = dataclasses.replace(record.config, attributions=(used,))
    cell = "integrated_gradients/l2"
    found = spec.identity(changed, *cell.split("/"))
    assert found["attribution"].endswith("smoothing=5)")
    assert found != record.identities[cell]


@every_record
def test_a_record_is_what_its_files_say(paper, name, tmp_path):
    kept = read(paper, name)
    records.write(kept, tmp_path)
    for suffix in ("json", "csv"):
        path = Path("tables") / f"{name}.{suffix}"
        assert (tmp_path / path).read_text() == (KEPT[paper, name] / path).read_text()
    assert records.read(tmp_path)[name].config == kept.config
