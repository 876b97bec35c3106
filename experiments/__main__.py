"""``python -m experiments COMMAND``."""

import os
import sys

# Before JAX starts, and for the worker processes: LLVM's last level costs a third of the time to compile here, and
# gains nothing in the time to run. Flags that are given go first.
if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=2".strip()

from experiments.cli import main

if __name__ == "__main__":
    sys.exit(main())
