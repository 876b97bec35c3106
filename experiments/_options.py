"""Build commands from presets: options whose defaults depend on other options."""

import argparse
import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg
from tyro.extras import SubcommandApp

from experiments.audits.config import Config, resolve
from experiments.audits.presets import PRESETS
from experiments.audits.presets import preset as preset_of

Main = Callable[..., int]

PRESETS_IN_WORDS = {name: words for name, (words, _) in PRESETS.items()}
"""What each preset of an audit is, by name."""


def describe_presets(presets: Mapping[str, str], more: str = "") -> str:
    """Return the docstring of a command that starts from a preset, from which its help is made.

    Args:
      presets: what each is, by name.
      more: lines about further arguments.
    """
    listed = "\n".join(f"  --preset {name}: {said}" for name, said in presets.items())
    about = "Start from a preset, and change any of its fields."
    return f"{about}\n\n{listed}\n\nArgs:\n  config: Options.\n  preset: Name of the preset to start from.\n{more}"


def add(app: SubcommandApp, function: Any, name: str = "", help: str | None = None) -> None:
    """Add a command, or a group of them, to a group."""
    app.command(function, name=name or function.__name__, help=help)


def not_asked_for() -> int:
    """Stand in for a command that was not asked for."""
    return 0


def peek(arguments: Sequence[str], option: str) -> str | None:
    """Return an option on which the defaults of the others depend, before these are parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(option)
    return getattr(parser.parse_known_args(arguments)[0], option.lstrip("-"))


def start_of(arguments: Sequence[str], default: str) -> Config:
    """Return the configuration of the preset that the command line names, for its data set."""
    given = peek(arguments, "--preset")
    name = given if given is not None and given in PRESETS else default
    return preset_of(name, peek(arguments, "--dataset"))


def with_config(function: Callable[[str, Config], Any], arguments: Sequence[str], default: str) -> Callable[..., Any]:
    """Build a command with all options of an audit, whose defaults are those of the preset for the data set."""
    start = start_of(arguments, default)

    def command(
        config: Annotated[Config, arg(name="")] = start,
        preset: Literal[tuple(PRESETS)] = default,  # pyright: ignore[reportInvalidTypeForm]
    ) -> Any:
        return function(preset, config)

    command.__doc__ = describe_presets(
        PRESETS_IN_WORDS, "Name of the settings to start from; every other option changes one."
    )
    return command


def resolved(preset: str, config: Config, directory: Callable[[str, str], Path] | None = None) -> Config:
    """Return the configuration with every default filled in; ``directory(dataset, preset)`` is the default output."""
    if directory is not None and config.output is None:
        config = dataclasses.replace(config, output=str(directory(config.dataset, preset)))
    return resolve(config, preset)


def join(distributed: bool) -> None:
    """Join the other processes of a distributed run before the first array is made."""
    import jax

    if distributed:
        jax.distributed.initialize()


def is_first() -> bool:
    """Whether this is process 0, the one that writes and prints."""
    import jax

    return jax.process_index() == 0


def command_line(command: str, arguments: Sequence[str]) -> str:
    """Return the command as it is written."""
    return shlex.join(["python", "-m", "experiments", command, *arguments])
