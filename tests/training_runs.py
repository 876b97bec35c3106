"""What tests of training share: a small network with everything a run carries along, data, and runs to be killed."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax

import jaxattr as ja
from jaxattr import models
from jaxattr.defenses import natural
from jaxattr.training import Batch, fit

TESTS = Path(__file__).parent


class Network(nn.Module):
    """Small, and with everything that a restart has to carry over: statistics and dropout."""

    @nn.compact
    def __call__(self, xs, train=False):
        xs = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(xs))
        return nn.Dense(3)(nn.Dropout(0.2, deterministic=not train)(nn.softplus(xs)))


APPLY = models.apply_fn(Network())

# With a random start for every sample, and an inner loop.
ADVERSARIAL = ja.defenses.adversarial(ja.attacks.pgd(ja.L2(0.3, box=None), num_steps=2))


def initial():
    return models.init(Network(), jax.random.key(0), (4,))


def make_data(n=50):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return Batch(x, (x @ rng.normal(size=(4, 3))).argmax(1).astype(np.int32))


def train(variables, **changes):
    options = {
        "objective": natural(),
        "data": make_data(),
        "optimizer": optax.adam(optax.cosine_decay_schedule(0.05, 60)),
        "batch_size": 16,
        "epochs": 6,  # of three steps: two samples are left over in each
        "key": jax.random.key(7),
        "log_every": 5,
        # A program of one device is quicker to compile; `None` are all of them.
        "devices": jax.devices()[:1],
    }
    options |= changes
    return fit(options.pop("objective"), APPLY, variables, options.pop("data"), **options)


def comparable(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def first_weight(variables):
    """An evaluation that needs no network."""
    return {"weight": float(jax.tree.leaves(variables["params"])[0].ravel()[0])}


def slowly(variables):
    """The same, slow enough to be interrupted."""
    time.sleep(0.1)
    return first_weight(variables)


def saved_steps(directory):
    """The steps of the complete checkpoints."""
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def start(code, *arguments, **environment):
    """Run Python code that may import this module, in another process."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_lines(log, count, processes, seconds=120):
    """Wait until a log has so many lines; fail early where a process has ended."""
    end = time.monotonic() + seconds
    while not log.exists() or log.read_bytes().count(b"\n") < count:
        ended = [process.communicate()[0] for process in processes if process.poll() is not None]
        assert not ended, "\n".join(ended)
        assert time.monotonic() < end, f"{log} has no {count} lines after {seconds} s"
        time.sleep(0.01)
