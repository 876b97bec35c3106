"""Explain predictions by gradient attributions: ``attribute(logits_fn, x, label) -> map``, one file per method."""

from jaxattr.attributions.completeness import completeness_gap as completeness_gap
from jaxattr.attributions.input_x_gradient import input_x_gradient as input_x_gradient
from jaxattr.attributions.integrated_gradients import integrated_gradients as integrated_gradients
from jaxattr.attributions.saliency import saliency as saliency

REGISTRY = {
    "saliency": saliency,
    "input_x_gradient": input_x_gradient,
    "integrated_gradients": integrated_gradients,
}
