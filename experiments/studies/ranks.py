"""Measure how much of an explanation's ranking is guaranteed, and how much of it survives an attack on the ranking.

    python -m experiments.studies.ranks --dataset digits
    python -m experiments.studies.ranks --dataset mnist --weights natural=n.npz --weights adversarial=a.npz

Prints a Markdown table, mean (and minimum) over correctly classified test samples: the guaranteed share of the top-k
set and the lower bound of Kendall's tau-b, of absolute values; the same two after IFIA on the top-k set; the share of
pairs whose order is fixed; and how many samples went below a guarantee (it is of the linear model, and the attack is
of the network). l-infinity guarantees are within the box. Networks whose weights are not given are trained first,
briefly. Digits take a few minutes on two CPU cores, MNIST a quarter of an hour with weights.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxattr as ja

NETWORKS = ("natural", "adversarial")


class Setting(NamedTuple):
    """Settings of one data set: the network, its training, the size of the top-k set, and radii."""

    model: Any
    epochs: int
    batch_size: int
    train_epsilon: float
    k: int
    l2: tuple[float, ...]
    linf: tuple[float, ...]


SETTINGS = {
    "digits": Setting(
        ja.models.SmallCNN(), 25, 64, 0.1, 16, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3), (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 0.1)
    ),
    "mnist": Setting(
        ja.models.ConvNet(mean=0.1307, std=0.3081), 1, 50, 0.3, 100, (0.001, 0.01, 0.1, 1.0), (1e-4, 1e-3, 1e-2, 0.1)
    ),
}


class Measured(NamedTuple):
    """Guarantees and attack results of one sample at one radius."""

    top_k_bound: jax.Array
    top_k: jax.Array
    tau_bound: jax.Array
    tau: jax.Array
    fixed_pairs: jax.Array
    violated: jax.Array


def method(make: type[ja.balls.Ball], attribute: Any, epsilons: tuple[float, ...], k: int, num_steps: int) -> Any:
    """Build bound and attack at all radii: ``(logits_fn, x, label, key) -> Measured``, with an axis of radii."""

    def at_radius(epsilon, logits_fn, x, label, key):
        ball = make(epsilon)
        guarantee = ja.bounds.rank_guarantee(attribute, ball, k=k, within_box=make is ja.LInf)
        found = guarantee(logits_fn, x, label, key)
        # There is a top-k set, since k is given.
        assert found.guaranteed_top_k is not None
        assert found.top_k_intersection is not None
        attack = ja.attacks.ifia(
            ball, attribute, ja.attacks.dissimilarities.top_k(k, map="feature"), num_steps=num_steps
        )
        moved = attack(logits_fn, x, label, key)
        before, after = (jnp.abs(attribute(logits_fn, z, label)) for z in (x, moved.x))
        top = jnp.zeros(x.size, bool).at[ja.metrics.top_k_indices(after, k)].set(True)
        share, tau = ja.metrics.top_k_intersection(before, after, k), ja.metrics.kendall_tau(before, after)
        lost = jnp.any(found.guaranteed_top_k.ravel() & ~top)
        below = (share < found.top_k_intersection - 1e-6) | (tau < found.kendall_tau - 1e-6)
        return Measured(found.top_k_intersection, share, found.kendall_tau, tau, found.fixed_pairs, lost | below)

    def over_radii(logits_fn, x, label, key):
        # The radius is the only thing that is mapped over: the Jacobian is computed once for all of them.
        return jax.vmap(lambda epsilon: at_radius(epsilon, logits_fn, x, label, key))(jnp.asarray(epsilons, x.dtype))

    return over_radii


def train(name: str, setting: Setting, data: Any) -> Any:
    """Train a network by the natural or the adversarial objective, and return its weights."""
    begin = time.perf_counter()
    attack = ja.attacks.pgd(ja.LInf(setting.train_epsilon), num_steps=7)
    objective = ja.defenses.natural() if name == "natural" else ja.defenses.adversarial(attack)
    steps = setting.epochs * (len(data.x) // setting.batch_size)
    result = ja.fit(
        objective,
        ja.models.apply_fn(setting.model),
        ja.models.init(setting.model, jax.random.key(0), data.x.shape[1:]),
        data,
        optimizer=optax.adam(optax.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 20 + 1, steps + 1)),
        batch_size=setting.batch_size,
        key=jax.random.key(1),
        steps=steps,
    )
    print(f"trained: {name}, {steps} steps, {time.perf_counter() - begin:.0f} s", flush=True)
    return result.variables


def correct(logits_fn: Callable[..., Any], data: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first ``count`` test samples that are classified correctly."""
    some = data.take(min(len(data.x), 4 * count))
    right = np.flatnonzero(np.argmax(jax.jit(jax.vmap(logits_fn))(some.x), axis=1) == some.label)[:count]
    return some.x[right], some.label[right]


def row(name: str, attribute: str, norm: str, epsilon: float, values: Measured) -> str:
    """Format one line of the table."""

    def both(share):
        return f"{np.mean(share):.3f} ({np.min(share):.3f})"

    cells = [name, attribute, norm, f"{epsilon:g}"]
    cells += [both(each) for each in (values.top_k_bound, values.top_k, values.tau_bound, values.tau)]
    cells += [f"{np.mean(values.fixed_pairs):.3f}", f"{int(np.sum(values.violated))} of {len(values.violated)}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Measure guaranteed ranks beside attacked ones.")
    parser.add_argument("--dataset", choices=sorted(SETTINGS), default="digits")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=PATH.npz",
        help="weights of the natural or adversarial network",
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--attack-steps", type=int, default=50)
    parser.add_argument("--ig-steps", type=int, default=5, help="nodes of integrated gradients (Gauss-Legendre)")
    parser.add_argument("--batch-size", type=int, default=5)
    options = parser.parse_args()
    setting, weights = SETTINGS[options.dataset], dict(pair.split("=", 1) for pair in options.weights)
    attributions = {
        "saliency": ja.attributions.saliency(),
        "IG": ja.attributions.integrated_gradients(options.ig_steps, rule="gauss_legendre"),
    }
    balls: dict[str, tuple[type[ja.balls.Ball], tuple[float, ...]]] = {
        "l2": (ja.L2, setting.l2),
        "linf": (ja.LInf, setting.linf),
    }
    methods = {
        (name, norm): method(make, attribute, epsilons, setting.k, options.attack_steps)
        for name, attribute in attributions.items()
        for norm, (make, epsilons) in balls.items()
    }
    test = ja.data.load(options.dataset, "test")
    lines = []
    for network in options.networks:
        if network in weights:
            variables = ja.weights.load_variables(weights[network])
        else:
            variables = train(network, setting, ja.data.load(options.dataset, "train"))
        logits_fn = ja.models.logits_fn(setting.model, variables)
        xs, labels = correct(logits_fn, test, options.samples)
        for (name, norm), each in methods.items():
            begin = time.perf_counter()
            lifted = ja.over_samples(each, logits_fn, batch_size=options.batch_size)
            found = lifted(xs, labels, jax.random.key(2))
            seconds = time.perf_counter() - begin
            print(f"measured: {network}, {name}, {norm}: {seconds:.0f} s, {len(xs)} samples", flush=True)
            for index, epsilon in enumerate(balls[norm][1]):
                at = Measured(*(leaf[:, index] for leaf in found))
                lines.append(row(network, name, norm, epsilon, at))
                print(lines[-1], flush=True)
    print(f"\n{options.dataset}, {options.samples} samples, k = {setting.k}, IFIA of {options.attack_steps} steps\n")
    print(
        "| network | attribution | norm | epsilon | top-k guaranteed | top-k attacked | tau guaranteed | tau attacked"
        " | fixed pairs | violations |"
    )
    print("| --- | --- | --- | --: | --: | --: | --: | --: | --: | --: |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
