"""Test every bound on random small Jacobians: is any bound below the deviation that a perturbation attains?

    python -m benchmarks.random_matrices [--count 100000] [--seed 0]

The Jacobian is a matrix A: of a user's own attribution ``A x``, or, if A is symmetric, of the saliency of a quadratic
network. Eight kinds of matrices are multiplied by powers of ten between 1e-30 and 1e30. NumPy computes the attained
values in float64: the exact singular value, all 2^5 corners of the cube and of the cube inside of the box, the region
of the label in closed form; Kendall's tau of the map before and after, at every corner.

Prints how many bounds are below the attained value, how many their confidence allows, and, for each kind, the largest
ratio of an attained value to its bound, as its distance from one: below zero, if no bound is below the truth. (For tau:
the bound less the least tau over all corners.)
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import jaxattr as ja
from jaxattr import _xla

SIZE = 5
EPSILON = 0.125
BATCH = 500
CONFIDENCE = 1 - 1e-6
KINDS = ("gaussian", "rank one", "ones", "signs", "diagonal", "double", "nearly equal", "sparse")
CORNERS = np.array(np.meshgrid(*[[-1.0, 1.0]] * SIZE)).reshape(SIZE, -1).T


def matrices(kind, count, rng, symmetric):
    """Draw matrices of a kind as float32, of sizes between 1e-30 and 1e30."""
    shape = (count, SIZE, SIZE)
    plain = rng.normal(size=shape)
    if kind == "gaussian":
        drawn = plain + np.swapaxes(plain, 1, 2) if symmetric else plain
    elif kind == "rank one":
        other = plain[:, 0] if symmetric else plain[:, 1]
        drawn = plain[:, 0, :, None] * other[:, None]
    elif kind == "ones":
        drawn = np.ones(shape) * rng.choice([-1, 1], (count, 1, 1))
    elif kind == "signs":
        drawn = np.sign(plain)
        drawn = np.triu(drawn) + np.swapaxes(np.triu(drawn, 1), 1, 2) if symmetric else drawn
    elif kind == "diagonal":
        drawn = plain * np.eye(SIZE)
    elif kind == "double":
        left, right = np.linalg.qr(plain)[0], np.linalg.qr(rng.normal(size=shape))[0]
        values = np.stack([np.ones(count), np.ones(count), *np.sort(rng.uniform(size=(3, count)), axis=0)], axis=1)
        values = values * (rng.choice([-1, 1], (count, SIZE)) if symmetric else 1)
        drawn = left * values[:, None] @ np.swapaxes(left if symmetric else right, 1, 2)
    elif kind == "nearly equal":
        noise = 10 ** rng.uniform(-8, -2, (count, 1, 1)) * plain
        row = plain[:, :1] if not symmetric else plain[:, :1] * 0 + 1
        drawn = row + (noise + np.swapaxes(noise, 1, 2) if symmetric else noise)
    else:
        kept = rng.uniform(size=shape) < 0.2
        drawn = plain * (kept & np.swapaxes(kept, 1, 2) if symmetric else kept)
        drawn = drawn + np.swapaxes(drawn, 1, 2) if symmetric else drawn
    scales = 10.0 ** rng.integers(-30, 31, (count, 1, 1))
    return (drawn * scales).astype(np.float32)


def _logits(parameters, x):
    matrix, offset, normals, margins = parameters
    z = x - 0.5
    return jnp.append(z @ matrix @ z / 2 + offset @ z, offset @ z + normals @ z - margins)


def own_map(logits_fn, x, label):
    """Compute a user's own attribution ``A (x - 1/2) + b``, whose Jacobian is any matrix A."""
    del label
    matrix, offset, *_ = logits_fn.args[0]
    return matrix @ (x - 0.5) + offset


def methods(attribute, symmetric):
    """List every bound with its region of comparison: ``name -> (region, bound)``."""
    b, steps = ja.bounds, {"num_steps": SIZE}
    cube = ja.LInf(EPSILON)
    rows = {
        "singular_value": ("ball", b.singular_value(attribute, ja.L2(EPSILON), **steps)),
        "singular_value, dense": ("ball", b.singular_value(attribute, ja.L2(EPSILON), method="dense")),
        "norm_relaxation": ("cube", b.norm_relaxation(attribute, cube, **steps)),
        "norm_relaxation, box": ("box", b.norm_relaxation(attribute, cube, method="dense", within_box=True)),
        "entrywise": ("cube", b.entrywise(attribute, cube)),
        "entrywise, box": ("box", b.entrywise(attribute, cube, within_box=True)),
        "semidefinite": ("cube", b.semidefinite(attribute, cube, method="products", **steps)),
        "semidefinite, dense": ("cube", b.semidefinite(attribute, cube, method="dense", rounds=20)),
        "semidefinite, box": ("box", b.semidefinite(attribute, cube, method="dense", rounds=20, within_box=True)),
        "rank_guarantee": ("ranks", b.rank_guarantee(attribute, cube)),
    }
    rows["smallest"] = ("cube", b.smallest(rows["norm_relaxation"][1], rows["entrywise"][1]))
    if symmetric:
        for method in ("products", "dense"):
            options = {} if method == "dense" else steps
            bound = b.label_constrained(attribute, ja.L2(EPSILON), method=method, **options)
            rows[f"label_constrained, {method}"] = ("label", bound)
        # The operator has one feature more than steps, and few nonzero eigenvalues: a random start may miss one.
        surer = b.label_constrained(attribute, ja.L2(EPSILON), **steps, confidence=CONFIDENCE)
        rows["label_constrained, products, confidence 1 - 1e-6"] = ("label", surer)
    return rows


def label_region(drawn, rng):
    """Build two classes that exclude both signs of the top singular vector: normals, margins, attained values."""
    wide = drawn.astype(np.float64)
    right = np.linalg.svd(wide)[2][:, 0]
    sizes = np.abs(wide).max(axis=(1, 2))
    sides = rng.uniform(0.05, 0.95, (len(drawn), 2))
    # Normals and margins are in units of the network's own logits. A zero matrix has a region all the same.
    unit = np.where(sizes > 0, sizes, 1)[:, None]
    normals = np.stack([right, -right], axis=1) * unit[..., None]
    margins = (EPSILON * sides * unit).astype(np.float32)
    normals = normals.astype(np.float32)
    # Find a feasible point for the rounded normals: in the plane of a normal, along the best direction within it.
    exact = normals.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=2, keepdims=True)
    axis = (exact / lengths)[:, 0]
    # Take the further side, less the shift that rounding of its margin and of the normals may cause.
    reach = EPSILON * np.max(sides, axis=1) * (1 - 1e-6)
    flat = np.eye(SIZE) - axis[:, :, None] * axis[:, None]
    within = np.linalg.svd((wide / unit[..., None]) @ flat)[2][:, 0]
    within = np.einsum("nij,nj->ni", flat, within)
    within = within / np.maximum(np.linalg.norm(within, axis=1, keepdims=True), 1e-300)
    rest = np.sqrt(EPSILON**2 - reach**2)
    side = np.where(sides[:, :1] >= sides[:, 1:], 1, -1)
    moved = [
        np.linalg.norm(
            np.einsum(
                "nij,nj->ni", wide / unit[..., None], side * reach[:, None] * axis + sign * rest[:, None] * within
            ),
            axis=1,
        )
        for sign in (1, -1)
    ]
    return normals, margins, np.maximum(*moved) * unit[:, 0]


def taus(before, after):
    """Compute Kendall's tau-b of absolute values, before (n, d), after (n, corners, d); NaN where it is undefined."""
    first = np.sign(np.abs(before)[:, :, None] - np.abs(before)[:, None])[:, None]
    second = np.sign(np.abs(after)[..., :, None] - np.abs(after)[..., None, :])
    counts = np.sqrt(np.abs(first).sum((2, 3)) * np.abs(second).sum((2, 3)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (first * second).sum((2, 3)) / counts


def attained(region, drawn, x, offset, label_truth):
    """Compute the largest deviation of each matrix in a region, in float64; for ranks the least tau."""
    wide = drawn.astype(np.float64)
    unit = np.abs(wide).max(axis=(1, 2), keepdims=True)
    unit = np.where(unit > 0, unit, 1)
    if region == "ball":
        return EPSILON * np.linalg.svd(wide / unit, compute_uv=False)[:, 0] * unit[:, 0, 0]
    if region == "label":
        return label_truth
    lower, upper = np.full(x.shape, -EPSILON), np.full(x.shape, EPSILON)
    if region == "box":
        lower, upper = np.maximum(lower, -x.astype(np.float64)), np.minimum(upper, 1 - x.astype(np.float64))
    steps = np.where(CORNERS > 0, upper[:, None], lower[:, None])
    moved = np.einsum("nij,ncj->nci", wide / unit, steps)
    if region == "ranks":
        z = x.astype(np.float64) - 0.5
        before = np.einsum("nij,nj->ni", wide / unit, z) + offset / unit[:, 0]
        return np.min(np.nan_to_num(taus(before, before[:, None] + moved), nan=1.0), axis=1)
    return np.linalg.norm(moved, axis=2).max(axis=1) * unit[:, 0, 0]


def batches(kind, count, rng, symmetric):
    """Yield batches of networks, inputs and attained values."""
    for _ in range(-(-count // BATCH)):
        drawn = matrices(kind, BATCH, rng, symmetric)
        x = rng.uniform(size=(BATCH, SIZE)).astype(np.float32)
        x[:, 0], x[:, 1] = 0, 1
        size = np.abs(drawn).max(axis=(1, 2))[:, None]
        offset = (rng.normal(size=(BATCH, SIZE)) * np.where(size > 0, size, 1)).astype(np.float32)
        normals, margins, truth = label_region(drawn, rng)
        yield drawn, x, offset, normals, margins, truth


def excess(region, found, truth):
    """Return how far the attained value exceeds its bound, relatively; for ranks, how far tau is below its bound."""
    if region == "ranks":
        return np.asarray(found.kendall_tau, np.float64) - truth.astype(np.float32)
    result = found.bound if region == "label" else found
    bound = np.asarray(result.euclidean, np.float64)
    largest = np.maximum(truth, np.asarray(result.euclidean_attained, np.float64))
    return np.where(largest == 0, -1, largest / np.where(bound > 0, bound, 1e-300) - 1)


def measure(count, seed=0, kinds=KINDS, only=None, halves=(False, True)):
    """Return ``name -> kind -> (largest excess, number beyond, number allowed to be beyond, number in all)``.

    Args:
      count: matrices for each bound.
      seed: seed of all random numbers.
      kinds: kinds of matrices.
      only: names of bounds; by default all.
      halves: any matrix, and symmetric ones.
    """
    table = {}
    for symmetric in halves:
        attribute = ja.attributions.saliency() if symmetric else own_map
        for name, (region, bound) in methods(attribute, symmetric).items():
            if only is not None and name not in only:
                continue
            key = jax.random.key(seed)
            run = jax.jit(jax.vmap(functools.partial(_run, bound)))
            for at, kind in enumerate(kinds):
                worst, beyond, allowed, seen = table.setdefault(name, {}).get(kind, (-1.0, 0, 0.0, 0))
                rng = np.random.default_rng((seed, at, symmetric))
                for i, (drawn, x, offset, normals, margins, truth) in enumerate(
                    batches(kind, count // len(kinds) // 2, rng, symmetric)
                ):
                    # Margins and normals of the label's region are those at the middle of the box.
                    center = np.full_like(x, 0.5) if region == "label" else x
                    keys = jax.random.split(jax.random.fold_in(key, i), len(drawn))
                    found = run((drawn, offset, normals, margins), center, keys)
                    over = excess(region, found, attained(region, drawn, x, offset, truth))
                    worst = max(worst, float(np.nanmax(over)))
                    # NaN is no bound.
                    beyond, seen = beyond + int((~(over <= 0)).sum()), seen + len(over)
                    result = found.bound if region == "label" else found
                    allowed += len(over) * (1 - float(getattr(result, "confidence", np.ones(1))[0]))
                table[name][kind] = (worst, beyond, allowed, seen)
            print(f"{name}, {'symmetric' if symmetric else 'any'}: {table[name]}", flush=True)
    return table


def _run(bound, parameters, x, key):
    return bound(Partial(_logits, parameters), x, 0, key)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="matrices for each bound")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    _xla.compile_quickly(optimization_level=0)
    table = measure(arguments.count, arguments.seed)
    print("\n| bound | matrices | beyond | allowed |" + "".join(f" {kind} |" for kind in KINDS))
    print("| --- | --: | --: | --: |" + " --: |" * len(KINDS))
    for name, row in table.items():
        beyond, allowed, seen = (sum(each[i] for each in row.values()) for i in (1, 2, 3))
        cells = "".join(f" {row[kind][0]:.1e} |" for kind in KINDS)
        print(f"| {name} | {seen:,} | {beyond} | {allowed:.1f} |{cells}")


if __name__ == "__main__":
    main()
