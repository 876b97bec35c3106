"""Load modules of a user's own, which register methods, before a command reads its options, and in every worker."""

import importlib
import os

VARIABLE = "JAXATTR_PLUGINS"
"""Environment variable with the names of modules, divided by commas."""


def load() -> None:
    """Import the modules that the environment variable ``JAXATTR_PLUGINS`` names.

    A module registers what it adds: ``jaxattr.attributions.REGISTRY["mine"] = mine``.

    Raises:
      ImportError: if one of them cannot be imported.
    """
    for name in filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(","))):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(f"{VARIABLE} names the module {name!r}, which cannot be imported: {error}") from error
