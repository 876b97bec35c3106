"""Bound attribution deviations from above: ``bound(logits_fn, x, label, key) -> DeviationBound``, one file each."""

from jaxattr.bounds._result import DeviationBound as DeviationBound
from jaxattr.bounds._result import cosine_from_euclidean as cosine_from_euclidean
from jaxattr.bounds.corrected import CorrectedBound as CorrectedBound
from jaxattr.bounds.corrected import corrected as corrected
from jaxattr.bounds.entrywise import entrywise as entrywise
from jaxattr.bounds.label_constrained import LabelConstrainedBound as LabelConstrainedBound
from jaxattr.bounds.label_constrained import label_constrained as label_constrained
from jaxattr.bounds.label_constraint import LabelConstraint as LabelConstraint
from jaxattr.bounds.label_constraint import LabelRegion as LabelRegion
from jaxattr.bounds.label_constraint import label_constraint as label_constraint
from jaxattr.bounds.label_constraint import label_region as label_region
from jaxattr.bounds.largest_epsilon import largest_epsilon as largest_epsilon
from jaxattr.bounds.norm_relaxation import norm_relaxation as norm_relaxation
from jaxattr.bounds.ranks import RankGuarantee as RankGuarantee
from jaxattr.bounds.ranks import rank_guarantee as rank_guarantee
from jaxattr.bounds.semidefinite import semidefinite as semidefinite
from jaxattr.bounds.singular_value import singular_value as singular_value
from jaxattr.bounds.smallest import smallest as smallest
from jaxattr.bounds.tightness import tightness as tightness

REGISTRY = {
    "singular_value": singular_value,
    "norm_relaxation": norm_relaxation,
    "entrywise": entrywise,
    "semidefinite": semidefinite,
}
