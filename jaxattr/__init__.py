"""Provide worst-case bounds, attacks and robust training for gradient attributions, in JAX.

There are three kinds of method, each a pure function of one sample, built by a constructor with the hyperparameters:

    attribute(logits_fn, x, label)       -> map                 jaxattr.attributions
    bound    (logits_fn, x, label, key)  -> DeviationBound      jaxattr.bounds
    attack   (logits_fn, x, label, key)  -> AttackResult        jaxattr.attacks

Methods are values: they print as they were built, equal calls give one object, and ``build(registry, text)`` builds one
of text such as ``integrated_gradients(num_steps=5)``. A constructor of one's own becomes one of them by ``@described``.

``over_samples(method, logits_fn)(xs, labels, key)`` runs any of them over a data set and all devices, and
``map_samples(metric)(*arrays)`` what compares their results.
"""

import importlib
from typing import TYPE_CHECKING

from jaxattr import _xla
from jaxattr import attacks as attacks
from jaxattr import attributions as attributions
from jaxattr import bounds as bounds
from jaxattr import metrics as metrics
from jaxattr import outputs as outputs
from jaxattr import parallel as parallel
from jaxattr._build import Call as Call
from jaxattr._build import build as build
from jaxattr._build import parse as parse
from jaxattr._spec import described as described
from jaxattr.attribution import Attribution as Attribution
from jaxattr.attribution import as_attribution as as_attribution
from jaxattr.balls import L2 as L2
from jaxattr.balls import LInf as LInf
from jaxattr.jacobian import AttributionJacobian as AttributionJacobian
from jaxattr.jacobian import attribution_jacobian as attribution_jacobian
from jaxattr.method import Method as Method
from jaxattr.programs.kinks import Kink as Kink
from jaxattr.programs.kinks import kinks as kinks
from jaxattr.programs.smooth import SmoothMatch as SmoothMatch
from jaxattr.programs.smooth import smooth as smooth
from jaxattr.programs.smooth import smooth_match as smooth_match
from jaxattr.samples import map_samples as map_samples
from jaxattr.samples import over_samples as over_samples

if TYPE_CHECKING:
    from jaxattr import accuracy as accuracy
    from jaxattr import apply_fn as apply_fn
    from jaxattr import checkpoints as checkpoints
    from jaxattr import data as data
    from jaxattr import defenses as defenses
    from jaxattr import labeled as labeled
    from jaxattr import models as models
    from jaxattr import preemption as preemption
    from jaxattr import training as training
    from jaxattr import weights as weights
    from jaxattr import zoo as zoo
    from jaxattr.training import fit as fit

__version__ = "0.1.0"

_xla.avoid_crashes()

# Modules that need Flax, Orbax or TFDS are imported on first use: bounds of a model from elsewhere need none of them.
_LAZY_MODULES = (
    *("accuracy", "apply_fn", "checkpoints", "data", "defenses", "labeled", "models", "preemption"),
    *("training", "weights", "zoo"),
)


def __getattr__(name: str):
    if name in _LAZY_MODULES:
        return importlib.import_module(f"jaxattr.{name}")
    if name == "fit":
        return importlib.import_module("jaxattr.training").fit
    raise AttributeError(f"module 'jaxattr' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_LAZY_MODULES, "fit"])
