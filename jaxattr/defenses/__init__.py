"""Train robust networks with the objectives of this package, one file each.

All are ``objective(apply_fn, variables, batch, key) -> (loss, aux)``, and :func:`jaxattr.fit`
minimizes them.
"""

from jaxattr.defenses._attacked import AttackedObjective as AttackedObjective
from jaxattr.defenses.aat import aat as aat
from jaxattr.defenses.aat import adv_aat as adv_aat
from jaxattr.defenses.adversarial import adversarial as adversarial
from jaxattr.defenses.art import art as art
from jaxattr.defenses.ig_norm import ig_norm as ig_norm
from jaxattr.defenses.ig_norm import ig_sum_norm as ig_sum_norm
from jaxattr.defenses.igr import igr as igr
from jaxattr.defenses.natural import natural as natural
from jaxattr.defenses.trades import trades as trades

REGISTRY = {
    "aat": aat,
    "adv_aat": adv_aat,
    "adversarial": adversarial,
    "art": art,
    "ig_norm": ig_norm,
    "ig_sum_norm": ig_sum_norm,
    "igr": igr,
    "natural": natural,
    "trades": trades,
}
"""Constructors by name, for scripts and tables of tests."""
