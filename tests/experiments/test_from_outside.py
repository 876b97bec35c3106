"""Methods of a module that is not of the package: they are in the commands, in rows and tables, and change no hash."""

import json
import sys

import polars as pl
import pytest

import jaxattr as ja
from experiments import cli
from experiments.audits.config import Config, resolve
from experiments.audits.presets import preset
from jaxattr.audit import plugins, spec
from jaxattr.audit.store import Store

MODULE = '''
"""An attribution with a key and an option, an attack, a metric and a defense of a stranger."""

import jax
import jax.numpy as jnp

import jaxattr as ja


def noisy_saliency(key, std=0.1):
    """Average the gradient over four inputs with noise."""
    def average(logits_fn, x, label):
        noise = std * jax.random.normal(key, (4, *x.shape), x.dtype)
        return jnp.mean(jax.vmap(lambda z: jax.grad(lambda v: logits_fn(v)[label])(x + z))(noise), axis=0)
    return average


def shake(ball, attribute, times=3):
    """Take the furthest of some random points of the ball."""
    def attack(logits_fn, x, label, key):
        before = attribute(logits_fn, x, label)
        keys = jax.random.split(key, times)
        points = jax.vmap(lambda k: ball.project_input(x, x + ball.sample(k, x.shape, x.dtype)))(keys)
        moved = jax.vmap(lambda z: jnp.linalg.norm((attribute(logits_fn, z, label) - before).ravel()))(points)
        best = points[jnp.argmax(moved)]
        kept = jnp.argmax(logits_fn(best)) == jnp.argmax(logits_fn(x))
        return ja.attacks.AttackResult(
            x=best, objective=jnp.max(moved), label=jnp.argmax(logits_fn(best)), label_kept=kept,
            distance=ball.norm(best - x), stalled=jnp.array(False), kinks=jnp.array(0),
        )
    return attack


def largest_change(a, b, scale=1.0):
    """Return the largest change of an entry."""
    return scale * jnp.max(jnp.abs(a - b))


def half(ball, share=0.5):
    """Train on a mean of the clean loss and that under attack."""
    clean, attacked = ja.defenses.natural(), ja.defenses.adversarial(ja.attacks.pgd(ball, num_steps=1))
    def objective(apply_fn, variables, batch, key):
        first, aux = clean(apply_fn, variables, batch, key)
        second, _ = attacked(apply_fn, variables, batch, key)
        return (1 - share) * first + share * second, aux
    return objective


ja.attributions.REGISTRY["noisy_saliency"] = noisy_saliency
ja.attacks.REGISTRY["shake"] = shake
ja.metrics.REGISTRY["largest_change"] = largest_change
ja.defenses.REGISTRY["half"] = half
'''
REGISTRIES = (ja.attributions.REGISTRY, ja.attacks.REGISTRY, ja.metrics.REGISTRY, ja.defenses.REGISTRY)
ATTACKS = ["restarts(pgd(num_steps=2), 2)", "restarts(shake(times=2), 2)"]
METRICS = ["spearman(magnitudes=True)", "change=largest_change(scale=2.0)"]
SMALL = ["--preset", "smoke", "--model", "mlp", "--num-samples", "8", "--l2", "0.05", "--linf", "--pictures", "0"]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "strangers_methods.py").write_text(MODULE)
    before = [dict(registry) for registry in REGISTRIES]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv(plugins.VARIABLE, "strangers_methods")
        yield folder
    sys.modules.pop("strangers_methods", None)
    for registry, content in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(content)


@pytest.fixture(scope="module")
def run(stranger, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "stranger"
    command = ["audit", *SMALL, "--output", str(directory), "--defenses", "half(share=0.25)", "--attributions"]
    command += ["noisy_saliency(std=0.05)", "--attacks", *ATTACKS, "--metrics", *METRICS]
    assert cli.main(command) == 0
    return directory


def test_they_are_in_the_rows(run):
    rows = Store(run, Config).rows()
    assert rows["model"].unique().to_list() == ["half"]
    assert rows["attribution"].unique().to_list() == ["noisy_saliency"]
    attacks = rows.filter(kind="attack")
    assert attacks.group_by("method").agg(pl.col("restart").n_unique()).sort("method").rows() == [
        ("pgd", 2),
        ("shake", 2),
        ("worst_direction", 2),
    ]
    assert attacks["change"].is_finite().all()
    # The largest change of an entry, twice, is at most twice the Euclidean one.
    assert (attacks["change"] <= 2 * attacks["euclidean"] * (1 + 1e-5)).all()
    bounds = rows.filter(kind="bound")
    assert (bounds["euclidean"] > 0).all()


def test_they_are_in_the_tables_and_the_page(run):
    summary = pl.read_csv(run / "summary.csv")
    assert {"shake", "kept_shake", "change", "spearman"} <= set(summary.columns)
    table, page = ((run / name).read_text() for name in ("table.md", "index.html"))
    for text in (table, page):
        assert "noisy_saliency" in text
        for title in ("shake", "change", "half"):
            assert title in text
    assert f"{summary['shake'][0]:.3g}" in table


def test_what_was_run_is_said_and_a_key_comes_from_the_seed(run):
    about = json.loads((run / "rows/model=half/attribution=noisy_saliency/norm=l2/cell.json").read_text())
    assert about["identity"]["attribution"] == "noisy_saliency(std=0.05)"
    assert about["identity"]["attacks"]["shake"] == "2 x shake(times=2)"
    assert about["metrics"] == {"spearman": "spearman(magnitudes=True)", "change": "largest_change(scale=2.0)"}
    card = json.loads((run / "models/half/network.json").read_text())
    assert card["defense"] == "half(share=0.25)"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--attributions", "noisy_salience", "did you mean `noisy_saliency`"),
        ("--attributions", "noisy_saliency(sdt=0.1)", "did you mean `std`"),
        ("--attacks", "shake(time=2)", "did you mean `times`"),
        ("--metrics", "largest_change(skale=2)", "did you mean `scale`"),
        ("--defenses", "half(chare=1)", "did you mean `share`"),
    ],
)
def test_unknown_names_and_options_are_refused_before_anything_is_trained(
    stranger, tmp_path, capsys, option, value, words
):
    assert cli.main(["audit", *SMALL, "--output", str(tmp_path / "run"), option, value]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def identities(name, dataset):
    config = resolve(preset(name, dataset), name)
    return {
        (label, norm): spec.identity_hash(spec.identity(config, label, norm))
        for label in spec.attributions(config)
        for norm in spec.norms(config)
    }


def test_no_hash_changes_by_methods_that_others_register(stranger):
    there = [dict(registry) for registry in REGISTRIES]
    plugins.load()
    after = identities("cpu", "mnist")
    for registry in REGISTRIES:
        for name in ("noisy_saliency", "shake", "largest_change", "half"):
            registry.pop(name, None)
    before = identities("cpu", "mnist")
    for registry, content in zip(REGISTRIES, there, strict=True):
        registry.update(content)
    assert before == after
