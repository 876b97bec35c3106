"""Runs of one process share their programs: what does not depend on a run's directory or weights is traced once."""

import dataclasses

import pytest

from experiments import evaluate
from experiments.recipes import Training


@pytest.fixture(scope="session", autouse=True)
def programs_are_traced_once():
    kept = {}

    def keep(make):
        def maker(*arguments):
            *of, config = arguments
            # Weights are an argument of the programs, however they were trained, and so are samples and keys.
            config = dataclasses.replace(
                config, output=None, num_samples=None, defenses=(), seed=0, training=Training(), pictures=0
            )
            key = make, *of, config
            if key not in kept:
                kept[key] = make(*arguments)
            return kept[key]

        return maker

    with pytest.MonkeyPatch.context() as patch:
        for name in ("bounds_program", "attack_program", "rank_program", "compare_program"):
            patch.setattr(evaluate, name, keep(getattr(evaluate, name)))
        yield
