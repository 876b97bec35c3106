"""Audits of one process share their programs: what does not depend on a run's directory or weights is traced once."""

import contextlib

import pytest

from jaxattr.audit import run, spec
from jaxattr.audit.spec import Measures

_KEPT = {}
# Weights, samples and keys are arguments of the programs; radii are given beside the configuration, and one program
# computes metrics alone.
_IGNORED = {
    "metrics": (), "num_samples": None, "l2": None, "linf": None, "batch_size": 1, "pictures": 0, "workers": 1,
    "skip_damaged": False,
}  # fmt: skip


def _keep(make):
    def maker(*arguments):
        *of, config = arguments
        # Calls are equal if their constructors are: what a test registers is not taken for something else.
        methods = ("attributions", "attacks") if of else ("metrics",)
        calls = {name: tuple(getattr(spec, name)(config).items()) for name in methods}
        others = {name: getattr(config, name) for name in Measures.__dataclass_fields__ if of} | _IGNORED
        # An attribution that draws noise has its key from the seed.
        if of and not any(call.accepts("key") for _, call in calls["attributions"]):
            others["seed"] = 0
        key = (make.__name__, *of, *(others | calls).items())
        if key not in _KEPT:
            _KEPT[key] = make(*arguments)
        return _KEPT[key]

    return maker


@contextlib.contextmanager
def shared():
    """Let :mod:`jaxattr.audit.run` make each program once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("bounds_program", "attack_program", "rank_program", "compare_program"):
            make = getattr(run, name)
            patch.setattr(run, name, make if make.__name__ == "maker" else _keep(make))
        yield
