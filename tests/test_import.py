"""What ``import jaxattr`` brings along, and the names that scripts rely on."""

import importlib
import subprocess
import sys
import types

import pytest

import jaxattr as ja

# Optax is not among them: norms and projections of balls are its own.
FOREIGN = (
    *("flax", "equinox", "haiku", "orbax", "chex", "beartype", "tensorflow_datasets", "tensorflow", "torch"),
    *("matplotlib", "sklearn", "polars", "pandas", "pyarrow", "jinja2", "tyro"),
)
LAZY = (
    *("accuracy", "apply_fn", "checkpoints", "data", "defenses", "labeled", "models", "preemption"),
    *("training", "weights", "zoo"),
)


def fresh(code: str) -> str:
    """The output of some code in a new interpreter."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_pulls_in_no_framework_and_starts_no_backend():
    code = f"""
import sys
import jaxattr
print([name for name in {FOREIGN!r} if name in sys.modules])
import jax
jax.config.update("jax_num_cpu_devices", 3)  # refused once a backend has started
print(len(jax.devices("cpu")))
"""
    assert fresh(code).split("\n")[:2] == ["[]", "3"]


def test_products_of_arrays_with_many_axes_do_not_crash_the_process():
    """jax-ml/jax#39257: without the flag that the import sets, jaxlib 0.10.2 and 0.11.0 die of this program."""
    code = """
import jaxattr
import jax
import jax.numpy as jnp
x = jnp.full((50, 1, 2, 4, 5, 8, 8, 1), 2.0)
print(float(jax.jit(lambda x, y: jnp.sum(x * y, axis=4))(x, x).sum()) / x.size)
"""
    assert fresh(code).split("\n")[0] == "4.0"


def test_lazy_names_work_in_a_fresh_interpreter_and_are_listed():
    code = f"""
import jaxattr as ja
names = dir(ja)
print(all(name in names for name in {(*LAZY, "fit")!r}))
print(ja.models.SmallCNN.__name__, callable(ja.data.load), callable(ja.fit), callable(ja.defenses.natural))
print(ja.fit is ja.training.fit)
"""
    assert fresh(code).split("\n")[:3] == ["True", "SmallCNN True True True", "True"]


@pytest.mark.parametrize("name", LAZY)
def test_lazy_modules_are_the_modules(name):
    assert isinstance(getattr(ja, name), types.ModuleType)
    assert getattr(ja, name) is importlib.import_module(f"jaxattr.{name}")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'jaxattr' has no attribute 'nothing'"):
        _ = ja.nothing
    assert not hasattr(ja, "nothing")


NAMES = """
L2 LInf attribution_jacobian over_samples map_samples fit
attributions.saliency attributions.input_x_gradient attributions.integrated_gradients attributions.REGISTRY
bounds.singular_value bounds.norm_relaxation bounds.entrywise bounds.smallest bounds.corrected
bounds.label_constraint bounds.largest_epsilon bounds.tightness bounds.REGISTRY
attacks.pgd attacks.ifia attacks.worst_direction attacks.restarts attacks.REGISTRY attacks.DISSIMILARITIES
attacks.dissimilarities.euclidean
metrics.euclidean metrics.cosine_distance metrics.degrees metrics.kendall_tau metrics.spearman
metrics.top_k_intersection metrics.mass_center_shift metrics.gini metrics.REGISTRY
outputs.probability outputs.log_probability outputs.loss outputs.margin
defenses.natural defenses.adversarial defenses.REGISTRY models.REGISTRY models.logits_fn models.apply_fn data.load
zoo.load zoo.names
"""


@pytest.mark.parametrize("path", NAMES.split())
def test_names_that_scripts_rely_on(path):
    found = ja
    for part in path.split("."):
        found = getattr(found, part)
    assert callable(found) or isinstance(found, dict)


def test_results_have_the_fields_that_scripts_read():
    bound = {"euclidean", "euclidean_attained", "cosine", "degrees", "vacuous", "direction", "attribution_norm"}
    assert bound | {"confidence", "slope", "epsilon", "active"} <= set(ja.bounds.DeviationBound.__dataclass_fields__)
    attack = {"x", "objective", "label", "label_kept", "distance", "stalled", "kinks"}
    assert attack == set(ja.attacks.AttackResult._fields)
    assert {"bound", "constant", "constant_plus", "euclidean", "remainder"} <= set(ja.bounds.CorrectedBound._fields)
    assert {"value", "matvec", "rmatvec", "dense"} <= set(dir(ja.AttributionJacobian))


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version  # noqa: PLC0415

    assert ja.__version__ == version("jaxattr")
