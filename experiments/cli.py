"""The command line: a preset, and any of its fields on top of it."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from experiments.config import PRESETS, Config, resolve
from experiments.workers import log_to_stderr

_COMMANDS = {
    "evaluate": "train, bound and attack; write rows, tables and a page",
    "report": "write tables and page again, from the rows of a run",
}


class UsageError(Exception):
    """The command line does not say what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 2 for wrong usage and files in the way."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr()
    command, rest = _command(arguments)
    # What is slow to import comes after what can be said without it.
    from experiments.store import StoreError

    try:
        return (_evaluate if command == "evaluate" else _report)(rest)
    except (StoreError, UsageError, ValueError, FileNotFoundError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse_evaluate(arguments: Sequence[str]) -> tuple[str, Config]:
    """The name of the preset and the resolved configuration."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", choices=PRESETS, default="demo")
    given, rest = parser.parse_known_args(arguments)
    listed = "\n".join(f"  --preset {name}: {words}" for name, (words, _) in PRESETS.items())
    config = tyro.cli(
        Config,
        prog="python -m experiments evaluate [--preset PRESET]",
        description=f"{_COMMANDS['evaluate'].capitalize()}. Start from a preset (by default demo):\n\n{listed}\n\n"
        "and change any of its fields:",
        default=PRESETS[given.preset][1],
        args=rest,
    )
    return given.preset, resolve(config, given.preset)


def _evaluate(arguments: list[str]) -> int:
    from experiments.evaluate import evaluate
    from experiments.report import render

    _, config = parse_evaluate(arguments)
    store = evaluate(config)
    print(render(store, _shown("evaluate", arguments)))
    return 0


def _report(arguments: list[str]) -> int:
    from experiments.report import command_of, render
    from experiments.store import Store

    parser = argparse.ArgumentParser(prog="python -m experiments report", description=_COMMANDS["report"])
    parser.add_argument("directory", type=Path, help="of a run, such as results/demo")
    directory = parser.parse_args(arguments).directory
    store = Store(directory, None)
    print(render(store, command_of(store)))
    return 0


def _shown(command: str, arguments: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "experiments", command, *arguments])


def _command(arguments: list[str]) -> tuple[str, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description="Scripted experiments.", add_help=False, allow_abbrev=False
    )
    listed = "; ".join(f"{name}: {words}" for name, words in _COMMANDS.items())
    parser.add_argument("command", choices=_COMMANDS, help=listed)
    if arguments[:1] in ([], ["-h"], ["--help"]):
        parser.print_help()
        raise SystemExit(0 if arguments else 2)
    return parser.parse_args(arguments[:1]).command, arguments[1:]
