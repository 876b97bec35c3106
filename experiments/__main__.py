"""``python -m experiments COMMAND``."""

import sys

from experiments.cli import main

sys.exit(main())
