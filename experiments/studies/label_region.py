"""Measure how often the label region excludes both signs of a bound's direction, and how much smaller bounds then are.

    python -m experiments.studies.label_region [--samples 200] [--method dense]

Trains a small CNN on scikit-learn's 8 x 8 digits for a minute, and takes Euclidean balls around test samples that it
classifies correctly. Prints a Markdown table with a row for each attribution and radius: the share of samples for which
all competing classes together exclude both signs of the top singular vector (the bound of Wang and Kong 2023 is then
not attained), how much smaller than it the constrained bound is on those samples, and how far the constrained bound is
above a perturbation that keeps the label.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxattr as ja

RADII = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
BATCH = 50


def trained(epochs):
    """Train the network, and return a classifier of one input with its weights in a Partial."""
    model = ja.models.SmallCNN()
    variables = ja.models.init(model, jax.random.key(0), (8, 8, 1))
    fitted = ja.fit(
        ja.defenses.natural(),
        ja.models.apply_fn(model),
        variables,
        ja.data.load("digits", "train"),
        optimizer=optax.adam(2e-3),
        batch_size=64,
        epochs=epochs,
        key=jax.random.key(1),
    )
    return ja.models.logits_fn(model, fitted.variables)


def correct(logits_fn, count):
    """Return the first test samples that are classified correctly, a whole number of batches."""
    data = ja.data.load("digits", "test")
    kept = np.flatnonzero(np.asarray(jnp.argmax(jax.vmap(logits_fn)(jnp.asarray(data.x)), axis=1)) == data.label)
    kept = kept[: min(count, len(kept)) // BATCH * BATCH]
    if not len(kept):
        raise SystemExit(f"batches have {BATCH} samples, and fewer are correct or asked for: take more `--samples`.")
    return jnp.asarray(data.x[kept]), jnp.asarray(data.label[kept])


def bounds_of(attribute, method):
    """Build one program for all radii."""

    @jax.jit
    def run(logits_fn, xs, labels, keys, epsilon):
        bound = ja.bounds.label_constrained(attribute, ja.L2(epsilon), method=method)
        return jax.vmap(bound, in_axes=(None, 0, 0, 0))(logits_fn, xs, labels, keys)

    def over(logits_fn, xs, labels, epsilon):
        keys = jax.random.split(jax.random.key(2), len(xs))
        parts = [
            run(logits_fn, *(each[i : i + BATCH] for each in (xs, labels, keys)), epsilon)
            for i in range(0, len(xs), BATCH)
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    return over


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure how much all competing labels together lower the bounds.")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--method", choices=("products", "dense"), default="products")
    options = parser.parse_args()

    logits_fn = trained(options.epochs)
    xs, labels = correct(logits_fn, options.samples)
    attributions = {
        "saliency": ja.attributions.saliency(),
        "IG-10": ja.attributions.integrated_gradients(num_steps=10),
    }
    print(f"{len(xs)} samples, method {options.method}\n")
    print("| attribution | radius | both excluded | mean reduction | largest | upper / attained, mean | largest |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, attribute in attributions.items():
        over = bounds_of(attribute, options.method)
        for epsilon in RADII:
            found = over(logits_fn, xs, labels, epsilon)
            excluded = found.both_excluded
            row = f"| {name} | {epsilon:g} | {excluded.mean():.1%} |"
            if not excluded.any():
                print(row, "| | | |", flush=True)
                continue
            bound = jax.tree.map(lambda leaf, rows=excluded: leaf[rows], found.bound)
            reduction = 1 - bound.slope / found.unconstrained.slope[excluded]
            ratio = bound.euclidean / bound.euclidean_attained
            print(
                f"{row} {reduction.mean():.2%} | {reduction.max():.2%} | {ratio.mean():.3f} | {ratio.max():.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
