"""Job of ``benchmarks.accelerator`` that bounds and attacks 1,000 samples of each network while time is left.

Its rows correspond to Tables 3 and 4 of Wang and Kong 2023: under l2 the bound of Theorem 1 and PGD, under
l-infinity the smaller of Theorem 2 and Corollary 1, and IFIA; beside them the semidefinite bound. Integrated gradients
have 50 steps.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxattr as ja
from benchmarks._queue import Context

SAMPLES, STARTS = 1000, 20


def samples(context: Context) -> dict[str, Any]:
    """Compute a row for each network and norm; rows of an earlier call are kept."""
    from experiments.datasets import defaults_of  # noqa: PLC0415

    dataset = "digits" if context.tiny else "mnist"
    defaults, test = defaults_of(dataset), ja.data.load(dataset, "test", context.data_dir)
    attribute = ja.attributions.saliency() if context.tiny else ja.attributions.integrated_gradients(50)
    programs = {norm: _program(norm, attribute, defaults, context.tiny) for norm in ("l2", "linf")}
    rows = list(context.before.get("rows", []))
    for name, network in _networks(context, dataset)[: 1 if context.tiny else None]:
        right = np.asarray(network.apply_fn(network.variables, test.x)[0].argmax(-1)) == test.label
        chosen = test[right].take(4 if context.tiny else SAMPLES)
        for norm, (epsilon, program, batch) in programs.items():
            if any(row["network"] == name and row["norm"] == norm for row in rows):
                continue
            begin = time.perf_counter()
            run = ja.over_samples(program, network.logits_fn, batch_size=batch)
            found = run(chosen.x, chosen.label, jax.random.key(0))
            made = {"network": name, "norm": norm, "epsilon": epsilon, "samples": len(chosen)}
            rows.append(made | _row(found) | {"seconds": round(time.perf_counter() - begin, 1)})
            context.save({"rows": rows})
    return {"rows": rows}


def _networks(context: Context, dataset: str) -> list[tuple[str, Any]]:
    """List the networks that were trained here, and those of the package, with their names."""
    trained = sorted((context.folder / "networks").glob(f"{dataset}-*"))
    here = [
        (f"{dataset}/{folder.name.partition('-')[2]}, trained here", ja.zoo.load("network", folder))
        for folder in trained
        if (folder / "network.json").exists()
    ]
    package = [(name, ja.zoo.load(name)) for name in ja.zoo.names() if name.startswith(f"{dataset}/")]
    return [*here, *package]


def _program(norm: str, attribute: Any, defaults: Any, tiny: bool) -> tuple[float, Any, int]:
    epsilon = defaults.main_l2 if norm == "l2" else defaults.main_linf
    ball = ja.balls.BALLS[norm](epsilon)
    starts = 2 if tiny else STARTS
    if norm == "l2":
        bounds = {"singular_value": ja.bounds.singular_value(attribute, ball)}
        attack = ja.attacks.restarts(ja.attacks.pgd(ball, num_steps=2 if tiny else 20), starts)
    else:
        bounds = {"smaller": ja.bounds.norm_relaxation(attribute, ball)}
        if not tiny:
            pair = bounds["smaller"], ja.bounds.entrywise(attribute, ball)
            bounds = {"smaller": ja.bounds.smallest(*pair), "semidefinite": ja.bounds.semidefinite(attribute, ball)}
        top_k = ja.attacks.dissimilarities.top_k(defaults.top_k, defaults.top_k_map)
        attack = ja.attacks.ifia(ball, attribute, top_k, num_steps=2 if tiny else 200)
        attack = ja.attacks.restarts(attack, 1)

    def program(logits_fn, x, label, key):
        attacked = attack(logits_fn, x, label, key)
        # The default precision of a device would drown the differences of two maps.
        with jax.default_matmul_precision("highest"):
            clean = attribute(logits_fn, x, label)
            maps = jax.lax.map(lambda z: attribute(logits_fn, z, label), attacked.x)
        moved = jax.vmap(lambda other: ja.metrics.euclidean(clean, other))(maps)
        turned = jax.vmap(lambda other: ja.metrics.degrees(clean, other))(maps)
        found = {name: bound(logits_fn, x, label, key) for name, bound in bounds.items()}
        return {
            "bounds": {
                name: {"euclidean": b.euclidean, "degrees": b.degrees, "vacuous": b.vacuous}
                for name, b in found.items()
            },
            "moved": moved,
            "turned": turned,
            "kept": jnp.mean(attacked.label_kept),
        }

    return epsilon, program, 4 if tiny else 50


def _row(found: dict[str, Any]) -> dict[str, Any]:
    """Average over samples, and attacks over starts, and count how often the furthest attack is beyond the bound."""
    furthest = found["moved"].max(axis=1)
    row: dict[str, Any] = {
        "attacked_euclidean": float(found["moved"].mean()),
        "attacked_degrees": float(np.nanmean(found["turned"])),
        "furthest_euclidean": float(furthest.mean()),
        "label_kept": float(found["kept"].mean()),
    }
    for name, bound in found["bounds"].items():
        tight = ~bound["vacuous"]
        row[name] = {
            "euclidean": float(bound["euclidean"].mean()),
            "degrees": float(bound["degrees"][tight].mean()) if tight.any() else None,
            "vacuous": float(bound["vacuous"].mean()),
            "beyond": float((furthest > bound["euclidean"]).mean()),
        }
    return row
