"""Train with one loop for every objective.

A training objective is ``objective(apply_fn, variables, batch, key) -> (loss, aux)``; the loop does
not depend on which. ``aux["metrics"]`` holds scalars for the log and ``aux["updates"]`` the collections that the
pass has changed (statistics of batch normalization). Only ``variables["params"]`` is optimized.

:func:`fit` is the loop, with batches, evaluations, checkpoints, and writers of what it measures. :class:`Trainer` is
the step in it, for loops of your own.
"""

from jaxattr.accuracy import accuracy as accuracy
from jaxattr.accuracy import robust_accuracy as robust_accuracy
from jaxattr.labeled import Batch as Batch
from jaxattr.training._fit import FitResult as FitResult
from jaxattr.training._fit import fit as fit
from jaxattr.training._saved_run import Interrupted as Interrupted
from jaxattr.training._trainer import Trainer as Trainer
from jaxattr.training._trainer import TrainState as TrainState
from jaxattr.training._writers import JsonLines as JsonLines
from jaxattr.training._writers import Progress as Progress
from jaxattr.training._writers import Run as Run
from jaxattr.training._writers import TensorBoard as TensorBoard
from jaxattr.training._writers import Writer as Writer
