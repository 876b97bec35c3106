"""Show why an attack exceeds T_e and T'_e: compare Taylor remainders along its own direction and along the bound's.

    python -m experiments.studies.outside mnist/ig_norm:281 mnist/art:344 [--epsilon 0.2]

Networks are those of the package, samples are indices of the test set: those that the evaluation of Wang and Kong 2023
found outside. For each, a row for the directions of PGD (the mean over its starts) and one for those of the bound, +v
and -v (the larger values): how far the map moved, and how far the linear model moves it, relative to T_e, and the
remainder relative to the linear change. Integrated gradients of 5 points, l2, valid inputs for PGD alone. Half a minute
each.
"""

import argparse

import jax
import jax.numpy as jnp

import jaxattr as ja


def table(network, index, epsilon, starts):
    """Print the rows of one sample."""
    logits_fn = ja.zoo.load(network).logits_fn
    data = ja.data.load(network.partition("/")[0], "test", limit=index + 1)
    x, label, ball = jnp.asarray(data.x[index]), int(data.label[index]), ja.L2(epsilon)
    attribute = ja.attributions.integrated_gradients(num_steps=5, rule="gauss_legendre")
    bound = ja.bounds.corrected(ja.bounds.singular_value(attribute, ball), attribute)
    attack = ja.attacks.restarts(ja.attacks.pgd(ball, num_steps=10), starts)

    def along(delta):
        clean, linear = jax.jvp(lambda z: attribute(logits_fn, z, label), (x,), (delta,))
        moved = attribute(logits_fn, x + delta, label) - clean
        return [jnp.linalg.norm(each.ravel()) for each in (moved, linear, moved - linear)]

    @jax.jit
    def measure(x):
        found = bound(logits_fn, x, label, jax.random.key(0))
        points = attack(logits_fn, x, label, jax.random.key(1)).x
        v = epsilon * found.bound.direction
        return (
            found.euclidean / found.bound.euclidean,
            found.bound.euclidean,
            jax.vmap(along)(jnp.concatenate([points - x, jnp.stack([v, -v])])),
        )

    corrected, limit, (moved, linear, rest) = measure(x)
    for name, values in (("PGD", lambda a: a[:starts].mean()), ("bound", lambda a: a[starts:].max())):
        row = (values(moved) / limit, values(linear) / limit, values(rest / linear))
        print(f"| {network}:{index} | {name} | {corrected:.3f} | " + " | ".join(f"{each:.2f}" for each in row) + " |")


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", nargs="+", metavar="DATASET/NETWORK:INDEX")
    parser.add_argument("--epsilon", type=float, default=0.2)
    parser.add_argument("--starts", type=int, default=4)
    options = parser.parse_args()
    print("| sample | direction | T'_e / T_e | moved / T_e | linear / T_e | remainder / linear |")
    print("| --- | --- | --: | --: | --: | --: |")
    for sample in options.samples:
        network, _, index = sample.rpartition(":")
        table(network, int(index), options.epsilon, options.starts)


if __name__ == "__main__":
    main()
