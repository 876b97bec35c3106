"""Compare a trained network with ReLU and max-pooling to its smooth twin: decisions kept, bounds before and after.

    python -m benchmarks.your_network --dataset digits
    python -m benchmarks.your_network --dataset mnist      # minutes on one CPU core

Trains an ordinary Flax network (two convolutions with ReLU and max-pooling, two dense layers) and prints three Markdown
tables. First the accuracy of `ja.smooth(network, beta=..., pooling=...)` and the share of test samples on which it
decides as the network does. Then the beta that `beta="match"` finds on training samples. Last, bounds of the Euclidean
change of an explanation beside observed changes: the largest one of random points of the ball, and of attacks (IFIA on
the network itself; for the network also the inputs that IFIA found on its twin, if the network keeps its label there).
"""

import argparse
import functools
import os
import time
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import jaxattr as ja

BETAS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
EPSILON = 0.1


class Network(nn.Module):
    """An ordinary Flax network with ReLU and max-pooling."""

    features: tuple[int, int] = (16, 32)

    @nn.compact
    def __call__(self, x):
        """Compute the logits of a batch."""
        for features in self.features:
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


def of_batch(variables: Any, xs: Any, *, train: bool = False, key: Any = None) -> Any:
    """Apply the network to a batch, in the form that `ja.fit` takes."""
    del train, key
    return Network().apply(variables, xs), {}


def of_one(variables, x):
    return Network().apply(variables, x[None])[0]


def train(data: Any, epochs: int) -> Partial:
    steps = epochs * (len(data.x) // 64)
    result = ja.fit(
        ja.defenses.natural(),
        of_batch,
        Network().init(jax.random.key(0), data.x[:1]),
        data,
        optimizer=optax.adam(optax.cosine_decay_schedule(3e-3, steps)),
        batch_size=64,
        key=jax.random.key(1),
        steps=steps,
    )
    return Partial(of_one, result.variables)


@jax.jit
def decisions(network, xs):
    return jax.lax.map(lambda x: jnp.argmax(network(x)), xs, batch_size=100)


class Seen(NamedTuple):
    """The bound and the largest observed changes of one sample."""

    norm: Any
    bound: Any
    random: Any
    attacked: Any
    transferred: Any


@functools.partial(jax.jit, static_argnums=0)
def measure(attribute, network, twin, xs, labels, key):
    """Compute bounds of `network`, and the largest changes of its explanations."""
    ball = ja.L2(EPSILON)
    bound = ja.bounds.singular_value(attribute, ball, kinks="allow")
    attack = ja.attacks.ifia(ball, attribute, ja.attacks.dissimilarities.euclidean(), num_steps=50, kinks="allow")

    def of_one_sample(sample):
        x, label, key = sample
        own = attribute(network, x, label)

        def moved(z):
            kept = jnp.argmax(network(z)) == label
            return jnp.where(kept, jnp.linalg.norm(attribute(network, z, label) - own), 0.0)

        keys = jax.random.split(key, 53)
        points = jax.vmap(lambda k: ball.project_input(x, x + ball.sample(k, x.shape)))(keys[3:])
        return Seen(
            jnp.linalg.norm(own),
            bound(network, x, label, keys[0]).euclidean,
            jnp.max(jax.lax.map(moved, points, batch_size=10)),
            moved(attack(network, x, label, keys[1]).x),
            moved(attack(twin, x, label, keys[2]).x),
        )

    return jax.lax.map(of_one_sample, (xs, labels, jax.random.split(key, len(xs))))


def beyond(seen: np.ndarray, bound: np.ndarray) -> str:
    """Format the share of samples beyond their bound by more than rounding, and the largest ratio."""
    share = np.mean(seen > 1.0001 * bound + 1e-6)
    largest = np.max(np.divide(seen, bound, out=np.where(seen > 1e-6, np.inf, 0.0), where=bound > 0))
    return f"{share:.0%} ({largest:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--data-dir", default=os.environ.get("TFDS_DATA_DIR"))
    parser.add_argument(
        "--epochs", type=int, default=None, help="epochs of training; default: 25 on digits, 1 on MNIST"
    )
    parser.add_argument(
        "--test-samples", type=int, default=2000, help="number of test samples whose decisions are compared"
    )
    parser.add_argument("--samples", type=int, default=100, help="number of samples whose bounds are computed")
    options = parser.parse_args()
    name, place = options.dataset, {} if options.dataset == "digits" else {"data_dir": options.data_dir}
    data, test = (ja.data.load(name, split, **place) for split in ("train", "test"))
    test = test.take(min(len(test.x), options.test_samples))
    begin = time.perf_counter()
    network = train(data, options.epochs or {"digits": 25, "mnist": 1}[name])
    original = np.asarray(decisions(network, test.x))
    print(f"{name}: trained in {time.perf_counter() - begin:.0f} s; {np.mean(original == test.label):.2%} of")
    print(f"{len(test.x)} test samples right\n")

    print("| data | pooling | beta | accuracy | decisions kept |\n| --- | --- | --: | --: | --: |")
    print(f"| {name} | the network itself | | {np.mean(original == test.label):.1%} | |")
    for pooling in ("logsumexp", "logmeanexp", "average"):
        for beta in BETAS:
            found = np.asarray(decisions(ja.smooth(network, test.x[0], beta=beta, pooling=pooling), test.x))
            right, kept = np.mean(found == test.label), np.mean(found == original)
            print(f"| {name} | {pooling} | {beta:g} | {right:.1%} | {kept:.1%} |", flush=True)

    print('\n| data | samples | agreement | beta="match" | kept of them | kept of the test set |')
    print("| --- | --: | --: | --: | --: | --: |")
    samples, match = data.x[:1000], None
    for agreement in (0.95, 0.98, 0.99, 0.998):
        match = ja.smooth_match(network, samples, agreement=agreement)
        kept = np.mean(np.asarray(decisions(match.twin, test.x)) == original)
        found = f"{match.beta:g} | {match.agreement:.1%} | {kept:.1%}"
        print(f"| {name} | {len(samples)} | {agreement:.1%} | {found} |", flush=True)

    twins = {f"twin, beta {beta:g}": ja.smooth(network, test.x[0], beta=beta) for beta in (10.0, 50.0)}
    right = np.flatnonzero(original == test.label)
    for twin in twins.values():
        right = right[np.asarray(decisions(twin, test.x[right])) == test.label[right]]
    chosen = right[: options.samples]
    print(f"\n{len(chosen)} test samples, l2 {EPSILON}\n")
    print("| data | explanation | network | bound / norm, median | random points | IFIA | IFIA on the twin |")
    print("| --- | --- | --- | --: | --: | --: | --: |")
    attributes = {"saliency": ja.attributions.saliency(), "IG-20": ja.attributions.integrated_gradients(20)}
    for kind, attribute in attributes.items():
        for which, each in {"ReLU, max-pooling": network, **twins}.items():
            # The network is attacked through its sharpest twin, too.
            through = list(twins.values())[-1] if each is network else each
            seen = measure(attribute, each, through, test.x[chosen], test.label[chosen], jax.random.key(2))
            seen = Seen(*map(np.asarray, seen))
            columns = [beyond(value, seen.bound) for value in (seen.random, seen.attacked)]
            columns += [beyond(seen.transferred, seen.bound) if each is network else ""]
            ratio = np.median(seen.bound / seen.norm)
            print(f"| {name} | {kind} | {which} | {ratio:.3f} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
