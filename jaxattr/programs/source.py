"""Locate an operation of a traced program in its user's files."""

import functools
import importlib.util
import os
import sysconfig
from collections.abc import Iterator, Sequence
from typing import Any

from jaxattr.programs.interpreter import Equation, Function, function

# Frames of these packages are not the user's.
_OF_NETWORKS = ("jaxattr", "flax", "equinox", "haiku", "optax")
_LIBRARIES = (*_OF_NETWORKS, "jax", "jaxlib", "chex", "jaxtyping", "beartype", "numpy", "einops", "absl")

_HERE = os.path.dirname(__file__) + os.sep


def where(chain: Sequence[Equation]) -> str:
    """Return the user's file, line and function of an operation.

    JAX keeps the program of a function that it has seen before, with the lines of whoever called it first. Of an
    operation inside of another one those frames are read, therefore, that lie within the function which that one
    evaluates; if none of them is the user's, the place is where the function is called.

    Args:
      chain: the operation, behind those that it is inside of.

    Returns:
      ``file:line (function)``, with a path below the working directory made relative to it; where all frames are of
      libraries, the package and the function that was called last, such as ``flax relu``.
    """
    place, inside = None, None
    for equation in chain:
        for file, name, line in _frames(equation, inside):
            if package(file) is None:
                place = f"{_short(file)}:{line} ({name})"
                break
        inside = function(equation) or inside
    if place is not None:
        return place
    for file, name, _ in _frames(chain[0], None):
        if package(file) in _OF_NETWORKS and not file.startswith(_HERE):
            return f"{package(file)} {name}"
    named = function(chain[0])
    return f"jax {named.name if named else chain[0].primitive.name}"


@functools.cache
def package(file: str) -> str | None:
    """Return the library of a file, ``"python"`` for the standard library, ``None`` for the user's files."""
    for name, folder in _folders():
        if file.startswith(folder):
            return name
    if file.startswith(("<@beartype", "<frozen", "<string>")):
        return "python"
    standard = sysconfig.get_path("stdlib") + os.sep
    installed = ("site-packages", "dist-packages")
    return "python" if file.startswith(standard) and not any(part in file for part in installed) else None


@functools.cache
def _folders() -> list[tuple[str, str]]:
    found = []
    for name in _LIBRARIES:
        # find_spec finds the package without importing it.
        spec = importlib.util.find_spec(name)
        found += [(name, folder + os.sep) for folder in (spec and spec.submodule_search_locations) or ()]
    return found


def _frames(equation: Equation, inside: Function | None) -> Iterator[tuple[str, str, int]]:
    """Iterate over file, function and line of the frames in which an operation was traced, innermost first.

    With ``inside``, yield only the frames up to that function; none, if it is not found.
    """
    frames = _all_frames(equation.source_info)
    if inside:
        ends = [
            index
            for index, (file, name, _) in enumerate(frames)
            if file == inside.file and name.rpartition(".")[2] == inside.name.rpartition(".")[2]
        ]
        frames = frames[: ends[0] + 1] if ends else []
    yield from frames


def _all_frames(info: Any) -> list[tuple[str, str, int]]:
    frames = getattr(info.traceback, "frames", ())
    return [(frame.file_name, frame.function_name, frame.line_num) for frame in frames]


def _short(file: str) -> str:
    below = os.getcwd() + os.sep
    return file.removeprefix(below)
