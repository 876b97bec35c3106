"""Tasks for the tests of workers, in a module that processes import."""

import os
import time

import jaxattr as ja
from jaxattr.audit.workers import stopped


def marker(path):
    return path.with_suffix(".begun")


def fail_or_wait(path):
    """Fail if there is no path; else wait until that is known."""
    if path is None:
        raise ValueError("the first error")
    marker(path).touch()
    while not stopped():
        time.sleep(0.01)
    path.write_text("stopped")


def write_threads(path):
    path.write_text(os.environ["OPENBLAS_NUM_THREADS"])


def write_methods(path):
    path.write_text(" ".join(ja.attributions.REGISTRY))
