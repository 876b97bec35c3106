"""Training objectives, one file each.

All are ``objective(apply_fn, variables, batch, key) -> (loss, aux)``, and :func:`jaxattr.fit`
minimizes them.
"""

from jaxattr.defenses.adversarial import adversarial as adversarial
from jaxattr.defenses.natural import natural as natural

REGISTRY = {"adversarial": adversarial, "natural": natural}
"""Constructors by name, for scripts and tables of tests."""
