"""Attack explanations and predictions: ``attack(logits_fn, x, label, key) -> AttackResult``, one file each."""

from jaxattr.attacks import dissimilarities as dissimilarities
from jaxattr.attacks._ascent import AttackObjective as AttackObjective
from jaxattr.attacks._ascent import PointObjective as PointObjective
from jaxattr.attacks._result import AttackResult as AttackResult
from jaxattr.attacks.dissimilarities import DISSIMILARITIES as DISSIMILARITIES
from jaxattr.attacks.dissimilarities import Compared as Compared
from jaxattr.attacks.dissimilarities import Dissimilarity as Dissimilarity
from jaxattr.attacks.ifia import ifia as ifia
from jaxattr.attacks.objectives import OBJECTIVES as OBJECTIVES
from jaxattr.attacks.objectives import NamedObjective as NamedObjective
from jaxattr.attacks.objectives import cross_entropy as cross_entropy
from jaxattr.attacks.objectives import deviation as deviation
from jaxattr.attacks.objectives import difference_of_logits_ratio as difference_of_logits_ratio
from jaxattr.attacks.objectives import kl_divergence as kl_divergence
from jaxattr.attacks.objectives import margin as margin
from jaxattr.attacks.objectives import weighted_sum as weighted_sum
from jaxattr.attacks.pgd import pgd as pgd
from jaxattr.attacks.restarts import restarts as restarts
from jaxattr.attacks.worst_direction import worst_direction as worst_direction

REGISTRY = {"pgd": pgd, "ifia": ifia, "worst_direction": worst_direction}
