"""A directory belongs to one run, whose hash outlives options that come later."""

import dataclasses
import json

import pytest
import small_audits
from small_audits import CONFIG, Config

from jaxattr.audit import run_directory
from jaxattr.audit.run_directory import StoreError, as_dict, config_hash, differences, from_dict, open_run
from jaxattr.audit.store import Store

GIVEN = dataclasses.replace(CONFIG, seed=3)


@dataclasses.dataclass(frozen=True)
class Inner:
    """Options of options, as those of a training are."""

    rate: float = 0.1
    steps: int | None = None


@dataclasses.dataclass(frozen=True)
class Nested(Config):
    inner: Inner = dataclasses.field(default_factory=Inner)


def later(kind, **options):
    """Make a configuration as a later version may have it: with one option more, and its default."""
    fields = [("late", int, dataclasses.field(default=4))]
    return dataclasses.make_dataclass("Later", fields, bases=(kind,), frozen=True)(**options)


def values(config):
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def test_an_option_that_comes_later_changes_no_hash_unless_it_is_used():
    assert config_hash(later(Config, **values(GIVEN))) == config_hash(GIVEN)
    assert config_hash(later(Config, **values(GIVEN), late=5)) != config_hash(GIVEN)
    nested = Nested(inner=Inner(steps=2))
    inside = dataclasses.replace(nested, inner=later(Inner, **values(nested.inner)))
    assert config_hash(inside) == config_hash(nested)
    assert config_hash(dataclasses.replace(nested, inner=Inner(steps=3))) != config_hash(nested)


def test_the_hash_is_of_networks_and_samples_and_of_the_version_of_the_numbers():
    for other in ({"output": "elsewhere"}, {"batch_size": 3}, {"l2": (0.07,)}, {"pictures": 0}, {"num_samples": 3}):
        assert config_hash(dataclasses.replace(GIVEN, **other)) == config_hash(GIVEN)
    for other in ({"seed": 4}, {"dataset": "mnist"}, {"smoothing": 0.7}):
        assert config_hash(dataclasses.replace(GIVEN, **other)) != config_hash(GIVEN)
    assert config_hash(GIVEN, run_directory.NUMERICS + 1) != config_hash(GIVEN)


def test_configurations_come_back_from_json():
    config = Nested(l2=(0.1, 0.2), inner=Inner(steps=2))
    assert from_dict(Nested, json.loads(json.dumps(as_dict(config)))) == config
    with pytest.raises(KeyError, match="unknown"):
        from_dict(Config, {"unknown": 1})


def test_differences_are_named_with_where_they_are():
    old, new = {"a": 1, "in": {"b": 1, "c": 2}}, {"a": 1, "in": {"b": 3, "c": 2}, "d": 4}
    assert differences(old, new) == ["d: None -> 4", "in.b: 1 -> 3"]


def test_a_run_of_other_numbers_is_shown_and_not_added_to(tmp_path, monkeypatch):
    open_run(tmp_path, Config, GIVEN)
    monkeypatch.setattr(run_directory, "NUMERICS", run_directory.NUMERICS + 1)
    assert Store(tmp_path, Config).config == GIVEN
    with pytest.raises(StoreError, match=r"version 1 of the computations, and this is version 2: .* `--output"):
        open_run(tmp_path, Config, GIVEN)


def test_a_run_knows_what_it_was_asked_for_last(tmp_path):
    open_run(tmp_path, Config, GIVEN, {}, "first")
    more = dataclasses.replace(GIVEN, num_samples=50)
    # A look into it changes nothing.
    open_run(tmp_path, Config, more)
    assert Store(tmp_path, Config).config == GIVEN
    open_run(tmp_path, Config, more, {}, "second")
    store = Store(tmp_path, Config)
    assert (store.config, store.command) == (more, "second")


def test_a_run_of_another_configuration_is_refused_and_named(tmp_path):
    open_run(tmp_path, Config, GIVEN)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(StoreError, match=r"seed: 3 -> 4; smoothing: 0\.5 -> 0\.7.*`--output DIRECTORY`") as error:
        open_run(tmp_path, Config, dataclasses.replace(GIVEN, seed=4, smoothing=0.7), {})
    assert str(tmp_path) in str(error.value)
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_run_that_goes_on_elsewhere_names_both_devices(tmp_path):
    open_run(tmp_path, Config, GIVEN, {"device": "8 x cpu"})
    for _ in range(2):
        run = open_run(tmp_path, Config, GIVEN, {"device": "1 x other"})
        assert run["environment"]["device"] == "8 x cpu, 1 x other"


def test_a_foreign_directory_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(StoreError, match=r"not empty and not a run's \(it holds thesis.tex"):
        small_audits.audit(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(StoreError, match="is a file"):
        open_run(tmp_path / "thesis.tex", Config, GIVEN)


def test_a_run_that_is_absent_damaged_or_of_another_command_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"no run\.json. Make one with `audit`"):
        Store(tmp_path, Config)
    open_run(tmp_path, Config, GIVEN)
    path = tmp_path / "run.json"
    run = json.loads(path.read_text())
    path.write_text(json.dumps({**run, "config": {**run["config"], "seed": 9}}))
    with pytest.raises(StoreError, match="its hash does not fit its configuration"):
        Store(tmp_path, Config)
    path.write_text(json.dumps({**run, "command": "train"}))
    with pytest.raises(StoreError, match="is a run of `train`, not of `audit`"):
        Store(tmp_path, Config)
    path.write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        Store(tmp_path, Config)
