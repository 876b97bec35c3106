"""Run the command line: ``python -m experiments COMMAND``."""

import sys

from experiments.cli import main
from jaxattr import _xla

if __name__ == "__main__":
    # Set this before JAX starts, for the worker processes, too: LLVM's last level costs a third of the time to compile
    # here, and gains nothing in the time to run.
    _xla.compile_quickly(optimization_level=2)
    sys.exit(main())
