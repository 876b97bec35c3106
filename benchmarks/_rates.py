"""Jobs of ``benchmarks.accelerator`` that measure samples a second of the library, beside plain PyTorch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import jaxattr as ja
from benchmarks import _measure
from benchmarks._measure import Program
from benchmarks._queue import Context
from benchmarks.spine import random_network

EPSILON = 0.1
TEN_MILLION = 10_000_000
_Method = Callable[..., Any]
_Opponent = Callable[[Any, Any], Any] | None


def mnist(context: Context) -> dict[str, Any]:
    """Measure attributions, bounds and attacks on the network of MNIST size, for the hours of ten million attacks."""
    model, variables = random_network()
    device = _measure.torch_device()
    opponent = None
    if device is not None:
        from benchmarks.torch_baseline import Baseline  # noqa: PLC0415 (optional)

        opponent = Baseline(variables["params"], device)
    result = _rates(context, ja.models.logits_fn(model, variables), (28, 28, 1), _of_mnist(context.tiny), opponent)
    for made in result["rows"]:
        if made["name"].startswith(("PGD", "IFIA")):
            made["hours_for_ten_million"] = TEN_MILLION / made["a_second"] / 3600
    return result


def resnet(context: Context) -> dict[str, Any]:
    """Measure the same on a ResNet-18 of full width for 32 x 32 x 3."""
    model = ja.models.ResNet18(width=2 if context.tiny else 64)
    variables = ja.models.init(model, jax.random.key(0), (32, 32, 3))
    ball, l2, saliency = ja.LInf(8 / 255), ja.L2(EPSILON), ja.attributions.saliency()
    ig = ja.attributions.integrated_gradients(50, chunk=10)
    rows: list[tuple[str, _Method, int, bool, _Opponent]] = [
        ("saliency", _keyless(saliency), 512, False, None),
        ("integrated gradients, 50 steps", _keyless(ig), 32, False, None),
        ("saliency: sigma_max, Lanczos 40", ja.bounds.singular_value(saliency, l2), 128, True, None),
        ("saliency: semidefinite, 170 products", ja.bounds.semidefinite(saliency, ball), 32, True, None),
        ("PGD-20", ja.attacks.pgd(ball), 512, False, None),
        ("IFIA top-k, 50 steps on saliency", ja.attacks.ifia(ball, saliency, num_steps=50), 128, False, None),
    ]
    rows = [rows[0], rows[4]] if context.tiny else rows
    return _rates(context, ja.models.logits_fn(model, variables), (32, 32, 3), rows, None)


def _of_mnist(tiny: bool) -> list[tuple[str, _Method, int, bool, _Opponent]]:
    """List (name, method, samples at once, whether PyTorch has full float32, the same in PyTorch)."""
    ball, l2, saliency = ja.LInf(EPSILON), ja.L2(EPSILON), ja.attributions.saliency()
    ig20, ig50 = (ja.attributions.integrated_gradients(steps) for steps in (20, 50))
    bounds, attacks = ja.bounds, ja.attacks

    def full(attribute, chunk):
        return lambda f, x, y, _: ja.attribution_jacobian(attribute, f, x, y).dense(chunk)

    def torch_ig(t, steps):
        return functools.partial(t.integrated_gradients, num_steps=steps)

    few: list[tuple[str, _Method, int, bool, _Opponent]] = [
        (
            "integrated gradients, 50 steps",
            _keyless(ig50),
            256,
            False,
            lambda t, xs: t.many_integrated_gradients(xs, 50),
        ),
        (
            "saliency: sigma_max, Lanczos 40",
            bounds.singular_value(saliency, l2),
            512,
            True,
            lambda t, xs: t.many_power_iterations(t.saliency, xs, 40),
        ),
        ("PGD-20", attacks.pgd(ball), 4096, False, lambda t, xs: t.pgd(xs, EPSILON, 20)),
        (
            "IFIA top-k, 50 steps on IG-20",
            attacks.ifia(ball, ig20, num_steps=50),
            128,
            False,
            lambda t, xs: t.ifia(xs, EPSILON, 50, 20, 100),
        ),
    ]
    if tiny:
        return few[:3]
    return [
        *few,
        (
            "saliency: full Jacobian",
            full(saliency, 112),
            16,
            True,
            lambda t, xs: [t.jacobian(t.saliency, x, 784) for x in xs],
        ),
        ("saliency: Theorem 2", bounds.entrywise(saliency, ball), 16, True, None),
        ("saliency: semidefinite, 170 products", bounds.semidefinite(saliency, ball), 256, True, None),
        (
            "IG-20: sigma_max, Lanczos 40",
            bounds.singular_value(ig20, l2),
            64,
            True,
            lambda t, xs: t.many_power_iterations(torch_ig(t, 20), xs, 80),
        ),
        ("IG-20: semidefinite, 170 products", bounds.semidefinite(ig20, ball), 32, True, None),
        ("IG-20: Theorem 2", bounds.entrywise(ig20, ball), 2, True, None),
        ("IFIA top-k, 200 steps on saliency", attacks.ifia(ball, saliency, num_steps=200), 1024, False, None),
        ("IFIA top-k, 200 steps on IG-50", attacks.ifia(ball, ig50, num_steps=200), 32, False, None),
    ]


def _keyless(attribute: Any) -> _Method:
    return lambda logits_fn, x, label, _: attribute(logits_fn, x, label)


def _rates(
    context: Context, logits_fn: Any, shape: tuple[int, ...], methods: list[Any], opponent: Any
) -> dict[str, Any]:
    programs, ways = [], {}
    known = finished(context)
    for name, method, batch, precise, in_torch in methods:
        if name in known:
            continue
        count = 2 if context.tiny else batch
        xs = jax.random.uniform(jax.random.key(3), (count, *shape))
        keys = jax.random.split(jax.random.key(2), count)
        one = functools.partial(_one, method)
        programs.append(Program(name, jax.vmap(one, in_axes=(None, 0, 0)), (logits_fn, xs, keys), count))
        ways[name] = (precise, in_torch, xs)
    result: dict[str, Any] = {"rows": list(known.values())}
    for program, future in _measure.compile_all(programs):
        try:
            made = _measure.row(program, future.result())
        except Exception as error:
            # A program that does not compile or fit into memory has a line, too.
            result["rows"].append({"name": program.name, "error": str(error)[:300]})
            context.save(result)
            continue
        result["rows"].append(made)
        context.save(result)
        precise, in_torch, xs = ways[program.name]
        if opponent is not None and in_torch is not None and context.left > 10:
            _measure.precise_torch(precise)
            images = opponent.images(xs)
            try:
                made["torch_seconds"] = _measure.torch_seconds(lambda run=in_torch, x=images: run(opponent, x))
                made["over_torch"] = made["seconds"] / made["torch_seconds"]
            except Exception as error:
                made["torch_error"] = str(error)[:300]
            context.save(result)
    return result


def finished(context: Context) -> dict[str, dict[str, Any]]:
    """Return the rows that an earlier call of the job measured, by name."""
    return {row["name"]: row for row in context.before.get("rows", []) if "seconds" in row}


def _one(method: _Method, logits_fn: Any, x: Any, key: Any) -> Any:
    return method(logits_fn, x, 0, key)


def steps(context: Context) -> dict[str, Any]:
    """Measure training steps a second of every objective of ``benchmarks.training``, at its batch size."""
    from benchmarks import training  # noqa: PLC0415
    from jaxattr.labeled import Batch  # noqa: PLC0415

    model, variables = random_network()
    optimizer = optax.adam(1e-4)
    state = optimizer.init(variables["params"])
    table = training.objectives()
    names = ["natural", "adversarial"] if context.tiny else [n for n in table if n != "ig_norm, rematerialized"]
    device = _measure.torch_device()
    programs, opponents = [], {}
    known = finished(context)
    for batch_size in (10,) if context.tiny else (50,):
        xs = np.asarray(jax.random.uniform(jax.random.key(3), (batch_size, 28, 28, 1)))
        batch = Batch(xs, np.arange(batch_size, dtype=np.int32) % 10)
        for name in names:
            if f"{name}, batch {batch_size}" in known:
                continue
            step = training.step_of(table[name][0](), ja.models.apply_fn(model), optimizer)
            arguments = (variables, state, jax.tree.map(jax.numpy.asarray, batch), jax.random.key(0))
            programs.append(Program(f"{name}, batch {batch_size}", step, arguments, batch_size))
            opponents[programs[-1].name] = (table[name][1], batch)
    result: dict[str, Any] = {"rows": list(known.values())}
    for program, future in _measure.compile_all(programs):
        made = _measure.row(program, future.result())
        made["steps_a_second"] = 1 / made["seconds"]
        result["rows"].append(made)
        context.save(result)
        way, batch = opponents[program.name]
        if device is not None and way is not None and context.left > 10:
            from benchmarks.torch_baseline import Trainer  # noqa: PLC0415 (optional)

            _measure.precise_torch(False)
            trainer = Trainer(variables["params"], batch.x, batch.label, training.EPSILON, device)
            run = functools.partial(getattr(trainer, way), training.PATH, training.STEPS, training.PGD_STEPS)
            made["torch_seconds"] = _measure.torch_seconds(run)
            made["over_torch"] = made["seconds"] / made["torch_seconds"]
            context.save(result)
    return result


def kendall(context: Context) -> dict[str, Any]:
    """Measure Kendall's tau-b of many pairs of maps, beside a loop over SciPy on the host."""
    from benchmarks import kendall as pairs  # noqa: PLC0415 (SciPy)

    result: dict[str, Any] = {"rows": []}
    for features, count in ((64, 100),) if context.tiny else ((784, 10_000), (3072, 2_000), (50_176, 100)):
        for zeros in (0.0, 0.8):
            ours, scipy, difference = pairs.compare(count, features, zeros)
            line = {"features": features, "ties": zeros, "pairs": count, "seconds": ours, "scipy_seconds": scipy}
            result["rows"].append(line | {"a_second": 1 / ours, "over_scipy": ours / scipy, "difference": difference})
            context.save(result)
    return result
