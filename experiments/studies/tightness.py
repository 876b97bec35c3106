"""Measure how near l-infinity bounds come to an attained corner, and what the box gains, on test images of MNIST.

    python -m experiments.studies.tightness --weights natural=natural.npz adversarial=adversarial.npz [--samples 20]

Weights are those of ``ConvNet(mean=0.1307, std=0.3081)``, saved by ``ja.weights.save_variables`` (``--train DIR``
makes them: up to an hour on two cores). Prints two Markdown tables: bound over the best corner known, medians over
samples, with the products that each bound took; and bounds within the box over bounds without it. The best corner is
the best of all bounds' corners and of 40 sign ascents on the dense Jacobian from random starts. Bounds know an
attribution by its Jacobian alone: it is formed once for each image, and a linear attribution with the same Jacobian
stands for the network's in all of them, with the same products.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxattr as ja
from jaxattr.bounds._sign_form import SignForm, ascend_signs

ATTRIBUTIONS = {
    "integrated gradients, 20 steps": ja.attributions.integrated_gradients(20),
    "saliency": ja.attributions.saliency(),
}


def bounds(attribute: Any, ball: ja.LInf, within_box: bool) -> dict[str, Any]:
    """Build the bounds that are compared."""
    b, box = ja.bounds, {"within_box": within_box}
    return {
        "Corollary 1": b.norm_relaxation(attribute, ball, **box),
        "Theorem 2": b.entrywise(attribute, ball, **box),
        "semidefinite": b.semidefinite(attribute, ball, **box),
        "semidefinite, until 2 % or 4 cycles": b.semidefinite(attribute, ball, cycles=4, tolerance=0.02, **box),
        "semidefinite, rank 8, 30 rounds": b.semidefinite(attribute, ball, rank=8, rounds=30, **box),
        "semidefinite, dense": b.semidefinite(attribute, ball, method="dense", **box),
    }


def linear(logits_fn: Any, z: jax.Array, _: Any) -> jax.Array:
    """Compute the attribution ``g + J (z - x)`` of a logits function that carries J, g and x."""
    matrix, value, x = logits_fn.args
    return value + (matrix @ (z - x).ravel()).reshape(x.shape)


def _no_logits(_: Any, __: Any, ___: Any, z: jax.Array) -> jax.Array:
    return jnp.zeros(2, z.dtype)


@functools.cache
def jacobian(attribute: Any) -> Any:
    """Compile the dense Jacobian, the attribution and the products that it took."""

    def run(logits_fn, x, label):
        found = ja.attribution_jacobian(attribute, logits_fn, x, label)
        return found.dense(32), found.value, found.dense_products()

    return jax.jit(run)


@functools.cache
def program(name: str, within_box: bool) -> Any:
    """Compile one bound of one sample; the radius is an argument."""

    def run(logits_fn, x, epsilon, key):
        if name == "corner":
            return corner(logits_fn, x, epsilon, key, within_box)
        result = bounds(linear, ja.LInf(epsilon), within_box)[name](logits_fn, x, 0, key)
        return result.slope, result.euclidean_attained / epsilon, result.products

    return jax.jit(run)


def corner(logits_fn: Any, x: jax.Array, epsilon: jax.Array, key: jax.Array, within_box: bool) -> tuple[Any, Any, int]:
    """Return the best value of 40 sign ascents, twice, and 0 products."""
    found = ja.attribution_jacobian(linear, logits_fn, x, 0)
    matrix = SignForm.of(found, ja.LInf(epsilon), x, within_box).dense(None)
    starts = jax.random.normal(key, (40, matrix.shape[1]))
    with jax.default_matmul_precision("highest"):
        signs = ascend_signs(lambda rows: (rows @ matrix.T) @ matrix, starts, 100)
        best = jnp.max(jnp.linalg.norm(signs @ matrix.T, axis=1))
    return best, best, 0


def measure(samples: list[tuple[Any, Any, int]], epsilon: float, within_box: bool, names: Any) -> dict[str, np.ndarray]:
    """Measure slope, slope over its own corner, and products of bounds, (samples, 3), and best corner, (samples, 1)."""
    found: dict[str, list[Any]] = {}
    for index, (logits_fn, x, dense_products) in enumerate(samples):
        best = 0.0
        for name in ("corner", *names):
            slope, attained, products = program(name, within_box)(logits_fn, x, epsilon, jax.random.key(index))
            best = max(best, float(attained))
            # The stand-in has no rows that cost nothing.
            count = dense_products if name in ("Theorem 2", "semidefinite, dense") else int(products)
            found.setdefault(name, []).append((float(slope), float(slope / attained), count))
        found["corner"][-1] = (best,)
    return {name: np.array(values) for name, values in found.items()}


def networks(options: argparse.Namespace) -> dict[str, Any]:
    """Load the classifiers of MNIST by name; train them first if asked."""
    model = ja.models.ConvNet(mean=0.1307, std=0.3081)
    if options.train:
        for name in ("natural", "adversarial"):
            train(model, name, options.train)
        options.weights = [f"{name}={options.train}/{name}.npz" for name in ("natural", "adversarial")]
    given = dict(item.split("=", 1) for item in options.weights)
    variables = {name: ja.weights.load_variables(path) for name, path in given.items()}
    test, attack = ja.data.load("mnist", "test").take(1000), ja.attacks.pgd(ja.LInf(0.3), num_steps=10)
    for name, weights in variables.items():
        clean = ja.training.accuracy(ja.models.apply_fn(model), weights, test)
        robust = ja.training.robust_accuracy(ja.models.apply_fn(model), weights, test, attack, jax.random.key(5))
        print(
            f"{name}: {clean:.1%} of the first 1,000 test images, {robust:.1%} under PGD-10 of radius 0.3", flush=True
        )
    return {name: ja.models.logits_fn(model, weights) for name, weights in variables.items()}


def train(model: Any, name: str, directory: str) -> None:
    """Train for 1,200 natural steps, and from there 800 with PGD of 5 steps and radius 0.3; batches of 50."""
    data = ja.data.load("mnist", "train")
    path = Path(directory) / f"{name}.npz"
    if path.exists():
        return
    if name == "natural":
        variables, steps, objective = ja.models.init(model, jax.random.key(0), (28, 28, 1)), 1200, ja.defenses.natural()
    else:
        variables, steps = ja.weights.load_variables(Path(directory) / "natural.npz"), 800
        objective = ja.defenses.adversarial(ja.attacks.pgd(ja.LInf(0.3), num_steps=5))
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, steps // 20 + 1, steps + 1)
    fitted = ja.fit(
        objective,
        ja.models.apply_fn(model),
        variables,
        data,
        optimizer=optax.adam(schedule),
        batch_size=50,
        key=jax.random.key(1),
        steps=steps,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    ja.weights.save_variables(path, fitted.variables)


def main() -> None:
    """Measure everything and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", default=[], help="NAME=FILE of a network, saved as .npz")
    parser.add_argument("--train", help="train a natural and an adversarial network, and save them in this directory")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--epsilon", type=float, nargs="+", default=[0.1, 0.3], help="radii within the box")
    options = parser.parse_args()
    xs = ja.data.load("mnist", "test").take(options.samples).x
    names = tuple(bounds(linear, ja.LInf(0.1), within_box=False))
    lines, gains = [], []
    for network, logits_fn in networks(options).items():
        for title, attribute in ATTRIBUTIONS.items():
            samples = []
            for x in map(jnp.asarray, xs):
                matrix, value, products = jacobian(attribute)(logits_fn, x, jnp.argmax(logits_fn(x)))
                samples.append((jax.tree_util.Partial(_no_logits, matrix, value, x), x, int(products)))
            plain = measure(samples, options.epsilon[0], within_box=False, names=names)
            for name in names:
                values = plain[name]
                ratio, own = values[:, 0] / plain["corner"][:, 0], values[:, 1]
                lines.append(
                    f"| {network} | {title} | {name} | {np.median(ratio):.3f} | {np.max(ratio):.3f} |"
                    f" {np.median(own):.3f} | {np.median(values[:, 2]):.0f} |"
                )
            for epsilon in options.epsilon:
                boxed = measure(samples, epsilon, within_box=True, names=names[:3])
                for name in names[:3]:
                    gain = boxed[name][:, 0] / plain[name][:, 0]
                    against = boxed[name][:, 0] / plain["Theorem 2"][:, 0]
                    tight = boxed[name][:, 0] / boxed["corner"][:, 0]
                    gains.append(
                        f"| {network} | {title} | {epsilon:g} | {name} | {np.median(gain):.3f} |"
                        f" {np.median(against):.3f} | {np.median(tight):.3f} |"
                    )
            print(f"measured: {network}, {title}", flush=True)
    print(
        f"\n{len(xs)} test images, bounds over the best corner known (its own corner: over what it attained itself)\n"
    )
    print("| network | attribution | bound | median | largest | over its own corner | products, median |")
    print("| --- | --- | --- | --: | --: | --: | --: |")
    print("\n".join(lines))
    print("\nWithin the box, medians\n")
    print("| network | attribution | epsilon | bound | over the same without box | over Theorem 2 | over best corner |")
    print("| --- | --- | --: | --- | --: | --: | --: |")
    print("\n".join(gains))


if __name__ == "__main__":
    main()
