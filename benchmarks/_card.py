"""Jobs of ``benchmarks.accelerator`` that measure the device, its matrix products, and the library's share of both."""

import functools
import platform
from typing import Any

import jax
import jax.numpy as jnp

import jaxattr as ja
from benchmarks import _measure
from benchmarks import convolutions as layers
from benchmarks._measure import Program
from benchmarks._queue import Context, read
from benchmarks.spine import random_network


def device(context: Context) -> dict[str, Any]:
    """Return the device's name, versions and memory, and its rates, to which all other results are compared."""
    found = jax.devices()[0]
    memory = found.memory_stats() or {}
    result: dict[str, Any] = {
        "device": found.device_kind,
        "platform": found.platform,
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "memory_gb": memory.get("bytes_limit", 0) / 1e9 or None,
        "rates": [],
    }
    sizes = (256,) if context.tiny else (4096, 8192)
    for size in sizes:
        for precision in ("highest", "default"):
            result["rates"].append(_matrix_rate(size, jnp.float32, precision))
        result["rates"].append(_matrix_rate(size, jnp.bfloat16, "default"))
        context.save(result)
    count = 2**16 if context.tiny else 2**30
    block = jnp.ones(count, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    result["copy_gb_a_second"] = 8 * count / _measure.timed(lambda: copy(block)) / 1e9
    result["float32_tflops"] = max(r["tflops"] for r in result["rates"] if r["precision"] == "highest")
    return result


def _matrix_rate(size: int, dtype: Any, precision: str) -> dict[str, Any]:
    a, b = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in range(2))
    product = jax.jit(functools.partial(jnp.matmul, precision=precision))
    seconds = _measure.timed(lambda: product(a, b))
    kind = jnp.dtype(dtype).name
    return {"size": size, "dtype": kind, "precision": precision, "tflops": 2 * size**3 / seconds / 1e12}


def hessian(context: Context) -> dict[str, Any]:
    """Measure Hessian products a second, and their share of float32's rate, for the MNIST network and a ResNet-18.

    A product is ``jvp`` of ``grad``, as the library's products with the Jacobian of saliency are. Its operations are
    four times those of one forward pass (value and tangent, forward and backward); the share counts these.
    """
    peak = read(context.folder, "device").get("result", {}).get("float32_tflops")
    batches = (1,) if context.tiny else (1, 32, 256, 1024, 4096)
    result: dict[str, Any] = {"peak_float32_tflops": peak, "rows": []}
    cases: list[tuple[str, Any, Any, tuple[int, ...], tuple[int, ...]]] = [
        ("conv_net", *random_network(), (28, 28, 1), batches)
    ]
    if not context.tiny:
        model = ja.models.ResNet18()
        variables = ja.models.init(model, jax.random.key(0), (32, 32, 3))
        cases.append(("resnet18", model, variables, (32, 32, 3), (16, 256)))
    for name, model, variables, shape, sizes in cases:
        logits_fn = ja.models.logits_fn(model, variables)
        forward = _measure.operations(logits_fn, jnp.zeros(shape))
        programs = [_product(f"{name}, precise, batch {size}", shape, size, "highest", logits_fn) for size in sizes]
        programs.append(_product(f"{name}, default, batch {sizes[-1]}", shape, sizes[-1], "default", logits_fn))
        for program, compiled in _measure.compile_all(programs):
            made = _measure.row(program, compiled.result())
            rate = 4 * forward * made["a_second"] / 1e12
            made |= {"tflops": rate, "share": rate / peak if peak else None}
            result["rows"].append(made)
            context.save(result)
    return result


def _product(name: str, shape: tuple[int, ...], batch: int, precision: str, logits_fn: Any) -> Program:
    xs, vs = (jax.random.uniform(jax.random.key(i), (batch, *shape)) for i in range(2))

    def product(f, x, v):
        # A program is compiled for the precision in force while it is traced.
        with jax.default_matmul_precision(precision):
            return jax.jvp(jax.grad(lambda z: f(z)[0]), (x,), (v,))[1]

    return Program(name, jax.vmap(product, in_axes=(None, 0, 0)), (logits_fn, xs, vs), batch)


def convolutions(context: Context) -> dict[str, Any]:
    """Compare the maps of our convolution with ``lax``'s, in value and in time, alone and in a loop.

    Ours are taken as they are on a CPU, whatever :func:`jaxattr.models.convolution` chooses on this backend.
    """
    batch, result = (4 if context.tiny else 256), {"rows": []}
    programs: list[Program] = []
    for size, channels, features in layers.LAYERS[:1] if context.tiny else layers.LAYERS:
        keys = jax.random.split(jax.random.key(0), 3)
        images = jax.random.normal(keys[0], (batch, size, size, channels))
        kernel = jax.random.normal(keys[1], (3, 3, channels, features))
        outputs = jax.random.normal(keys[2], (batch, size - 2, size - 2, features))
        for name, function in layers.MAPS.items():
            for way, implementation in (("lax", jax.lax.conv_general_dilated), ("ours", _ours)):
                one = functools.partial(_precisely, functools.partial(function, implementation))
                title = f"{size} x {size} x {channels} to {features}, {name}, {way}"
                programs.append(Program(title, one, (images, kernel, outputs), batch))
                looped = functools.partial(_precisely, functools.partial(layers.looped, one))
                programs.append(
                    Program(f"{title}, in a loop", looped, (images, kernel, outputs), batch * layers.LENGTH)
                )
    pairs: dict[str, Any] = {}
    for program, future in _measure.compile_all(programs):
        compiled = future.result()
        made = _measure.row(program, compiled)
        if not program.name.endswith("loop"):
            pairs[program.name] = compiled.run(*program.arguments)
        result["rows"].append(made)
        context.save(result)
    differences = {}
    for name, mine in pairs.items():
        if name.endswith("ours"):
            theirs = pairs[name.removesuffix("ours") + "lax"]
            differences[name] = float(jnp.linalg.norm(mine - theirs) / jnp.linalg.norm(theirs))
    return result | {"largest_relative_difference": max(differences.values()), "differences": differences}


def _ours(images: Any, kernel: Any, strides: Any, padding: Any, **_: Any) -> Any:
    from jaxattr.models import convolutions as module  # noqa: PLC0415

    pads = module._pads(padding, images.shape[1:3], kernel.shape[:2], strides)
    precision = jax.lax.Precision.HIGHEST
    return module._to_images.bind(images, kernel, strides=strides, pads=pads, dilation=(1, 1), precision=precision)


def _precisely(function: Any, *arguments: Any) -> Any:
    with jax.default_matmul_precision("highest"):
        return function(*arguments)
