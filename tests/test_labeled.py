import numpy as np
import pytest

from jaxattr.labeled import Batch, samples_and_labels


@pytest.mark.parametrize("label", [np.arange(2), np.zeros(3), np.zeros((3, 1), int)], ids=["number", "float", "shape"])
def test_samples_without_their_labels_are_refused(label):
    with pytest.raises(ValueError, match=r"one integer `label` each \(n,\), got x \(3, 3\)"):
        samples_and_labels(Batch(np.eye(3), label))
