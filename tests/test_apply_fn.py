import jax
import numpy as np
import pytest

from jaxattr.apply_fn import as_classifier, check_classes


def linear(variables, xs, *, train=False, key=None):
    return xs @ variables["params"], {}


EYE = {"params": np.eye(3, dtype=np.float32)}


def test_equal_networks_are_one_structure():
    assert jax.tree.structure(as_classifier(linear, EYE)) == jax.tree.structure(as_classifier(linear, EYE))


def test_a_network_of_single_samples_is_refused():
    with pytest.raises(ValueError, match=r"must return logits \(n, classes\).*returned logits \(3,\)"):
        check_classes(lambda _, xs: (xs[0], {}), EYE, np.eye(3, dtype=np.float32))
