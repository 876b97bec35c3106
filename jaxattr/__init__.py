"""Worst-case bounds, attacks and robust training for gradient attributions, in JAX."""

from jaxattr import attributions as attributions
from jaxattr import bounds as bounds
from jaxattr import outputs as outputs
from jaxattr.balls import L2 as L2
from jaxattr.balls import LInf as LInf
from jaxattr.jacobian import AttributionJacobian as AttributionJacobian
from jaxattr.jacobian import attribution_jacobian as attribution_jacobian
