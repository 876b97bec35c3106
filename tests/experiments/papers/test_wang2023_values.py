"""Values that figures of Wang and Kong 2023 need beside rows, against a map whose values are known."""

import jax.numpy as jnp
from small_papers import SMALL, stored

from experiments import cli
from experiments.papers.wang2023 import values


def test_the_diagonal_of_a_jacobian_that_is_one_dominates(copy, monkeypatch):
    arguments = ["paper", "wang2023", "figure", "1b", *SMALL, "--output", str(copy)]
    assert cli.main(arguments) == 0
    found = values.dominance(stored(copy))
    assert sorted(found) == ["natural", "trades_igr"]
    assert all(0 <= value["share"] < 1 and value["n"] == 8 for value in found.values())
    assert values.kept(None, stored(copy)) == {"dominant": found}
    # A linear map of the input has a diagonal Jacobian.
    (copy / "1b.csv").unlink()
    assert values.kept(None, stored(copy)) == {}

    def linear(_, x, __):
        return x * jnp.arange(x.size).reshape(x.shape)

    monkeypatch.setattr(values.spec, "attribution", lambda *_: linear)
    assert cli.main(arguments) == 0
    assert values.dominance(stored(copy)) == {model: {"share": 1.0, "n": 8} for model in found}
