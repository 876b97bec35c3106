"""Parse the command line (a preset, and changes of its fields), and run the command."""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from experiments import accuracies, networks, recipes
from experiments.config import Config, resolve
from experiments.networks import TrainConfig
from experiments.presets import PRESETS
from experiments.presets import preset as preset_of
from experiments.recipes import Training
from experiments.workers import log_to_stderr

_COMMANDS = {
    "train": "train a network with a defense; write checkpoints, weights and a card",
    "evaluate": "train, bound and attack; write rows, tables and a page",
    "seeds": "evaluate with several seeds; write means and standard errors",
    "table": "compute what a table of Wang and Kong 2023 needs, and show it beside the paper's",
    "figure": "compute what a figure of Wang and Kong 2023 needs, and draw it",
    "report": "write tables and page again, of one run, or of Wang and Kong 2023 from everything that has results",
    "publish": "add the network of a finished training to the zoo",
    "pack-data": "pack prepared data sets into one file each, for machines without TFDS",
    "take-in": "take in what `make accelerator` left: tables, records, networks",
}
_Kind = TypeVar("_Kind")


class UsageError(Exception):
    """Raised if the command line does not say what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 for a training that failed, 2 for wrong usage and files in the way."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr()
    command, rest = _command(arguments)
    # Import slow modules after help and usage errors, which need none of them.
    from experiments.record import StoreError

    run = {
        "train": _train,
        "evaluate": _evaluate,
        "seeds": _seeds,
        "table": _table,
        "figure": _figure,
        "report": _report,
        "publish": _publish,
        "pack-data": _pack_data,
        "take-in": _take_in,
    }[command]
    try:
        return run(rest)
    # The ImportError of an optional package says how to install it.
    except (StoreError, UsageError, ValueError, FileNotFoundError, FileExistsError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def parse_evaluate(
    arguments: Sequence[str], command: str = "evaluate", directory: Callable[[str, str], Path] | None = None
) -> tuple[str, Config]:
    """Parse the name of the preset and the resolved configuration.

    Args:
      arguments: arguments of the command line.
      command: name of the command.
      directory: function from data set and preset to the default output.
    """
    presets = {name: words for name, (words, _) in PRESETS.items()}
    preset, rest = _preset(arguments, presets, "cpu" if directory else "demo")
    config = _fields(command, Config, preset_of(preset, _dataset(rest)), presets, rest)
    if directory is not None and config.output is None:
        config = dataclasses.replace(config, output=str(directory(config.dataset, preset)))
    return preset, resolve(config, preset)


def parse_train(arguments: Sequence[str]) -> TrainConfig:
    """Parse the resolved configuration of ``train``."""
    preset, rest = _preset(arguments, recipes.PRESETS, "cpu")
    default = TrainConfig(training=Training(preset=preset))  # pyright: ignore[reportArgumentType]
    return networks.resolve(_fields("train", TrainConfig, default, recipes.PRESETS, rest))


def _preset(arguments: Sequence[str], presets: Mapping[str, str], default: str) -> tuple[str, list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", choices=presets, default=default)
    given, rest = parser.parse_known_args(arguments)
    return given.preset, rest


def _dataset(arguments: Sequence[str]) -> str | None:
    """Return the data set that the command line names; other defaults depend on it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--dataset")
    return parser.parse_known_args(arguments)[0].dataset


def _fields(
    command: str, kind: type[_Kind], default: _Kind, presets: Mapping[str, str], arguments: Sequence[str]
) -> _Kind:
    listed = "\n".join(f"  --preset {name}: {words}" for name, words in presets.items())
    return tyro.cli(
        kind,
        prog=f"python -m experiments {command} [--preset PRESET]{' [--seeds N]' * (command == 'seeds')}",
        description=f"{_COMMANDS[command].capitalize()}. Start from a preset:\n\n{listed}\n\n"
        "and change any of its fields:",
        default=default,
        args=arguments,
    )


def _train(arguments: list[str]) -> int:
    config = parse_train(arguments)
    _join(config.distributed)
    card = networks.train(config, progress=True)
    if _is_first():
        print(f"{config.dataset}, {config.defense}: {accuracies.in_words(card)}")
        print(f"Weights and card: {config.output}/{networks.NAME}.npz, .json")
    return 0


def _evaluate(arguments: list[str]) -> int:
    from experiments.evaluate import evaluate
    from experiments.report import render

    _, config = parse_evaluate(arguments)
    _join(config.distributed)
    store = evaluate(config)
    if _is_first():
        print(render(store, _shown("evaluate", arguments)))
    return 0


def _seeds(arguments: list[str]) -> int:
    from experiments import seeds

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=5)
    given, rest = parser.parse_known_args(arguments)
    _, config = parse_evaluate(rest, "seeds")
    _join(config.distributed)
    print(seeds.run(config, given.seeds))
    print(f"Table: {config.output}/table.md\nAll numbers: {config.output}/seeds.csv")
    return 0


def _table(arguments: list[str]) -> int:
    return _of_paper("table", arguments)


def _figure(arguments: list[str]) -> int:
    return _of_paper("figure", arguments)


def _of_paper(kind: str, arguments: list[str]) -> int:
    from experiments import paper, paper_report

    names = paper.TABLES if kind == "table" else paper.FIGURES
    prog = f"python -m experiments {kind}"
    parser = argparse.ArgumentParser(
        prog=prog,
        description=_COMMANDS[kind],
        epilog=f"`{prog} NAME --help` lists all options, which are those of `evaluate`.",
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("name", choices=names, help=f"name of the {kind}")
    if arguments[:1] in (["-h"], ["--help"]):
        parser.print_help()
        return 0
    given, rest = parser.parse_known_args(arguments)
    preset, config = parse_evaluate(rest, kind, paper.directory)
    _join(config.distributed)
    store = paper.compute(kind, given.name, config)
    if not _is_first():
        return 0
    if kind == "table":
        print(paper_report.table(given.name, store))
    else:
        print(f"Figure: {paper_report.figure(given.name, store)}")
    print(f"Rows: {store.directory} (preset {preset}). The page of all runs: python -m experiments report")
    return 0


def _report(arguments: list[str]) -> int:
    from experiments import paper, paper_report
    from experiments.report import command_of, render
    from experiments.store import Store

    parser = argparse.ArgumentParser(prog="python -m experiments report", description=_COMMANDS["report"])
    parser.add_argument("directory", type=Path, nargs="?", help="directory of a run, such as results/demo")
    parser.add_argument("--runs", type=Path, default=paper.RUNS, help="directory of the runs of Wang and Kong 2023")
    parser.add_argument("--output", type=Path, default=paper.REPORT, help="directory of their report")
    parser.add_argument("--skip-damaged", action="store_true", help="leave out files of rows that cannot be read")
    given = parser.parse_args(arguments)
    if given.directory is None:
        paper_report.render(paper.stores(given.runs, given.skip_damaged), given.output)
        print(f"Page: {given.output / 'index.html'}\nMarkdown: {given.output / 'report.md'}")
        return 0
    store = Store(given.directory, None, skip_damaged=given.skip_damaged)
    print(render(store, command_of(store)))
    return 0


def _publish(arguments: list[str]) -> int:
    from experiments.publish import publish

    parser = argparse.ArgumentParser(prog="python -m experiments publish", description=_COMMANDS["publish"])
    parser.add_argument("run", type=Path, help="directory of a finished `train`")
    parser.add_argument("name", help="name of the network, DATASET/WORD, such as mnist/trades_igr")
    parser.add_argument("--directory", type=Path, help="directory of the zoo; by default jaxattr/zoo")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        help="type of the stored weights; by default float32, if the file is then small enough",
    )
    parser.add_argument("--data-dir", help="directory of data prepared by TFDS, to measure rounded weights")
    parser.add_argument("--overwrite", action="store_true", help="replace a network of this name")
    given = parser.parse_args(arguments)
    path = publish(**vars(given))
    print(f"{given.name}: {path}")
    return 0


def _pack_data(arguments: list[str]) -> int:
    from experiments.pack_data import pack

    parser = argparse.ArgumentParser(prog="python -m experiments pack-data", description=_COMMANDS["pack-data"])
    parser.add_argument(
        "--datasets", nargs="+", required=True, metavar="NAME", help="data sets, such as mnist, cifar10_jpeg"
    )
    parser.add_argument("--output", type=Path, default=Path("packed"), help="directory of the files; by default packed")
    parser.add_argument("--data-dir", help="directory of data prepared by TFDS")
    parser.add_argument(
        "--train-samples", type=int, help="number of training samples, from the first one; by default all"
    )
    given = parser.parse_args(arguments)
    for path in pack(given.datasets, given.output, data_dir=given.data_dir, train_samples=given.train_samples):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _take_in(arguments: list[str]) -> int:
    from experiments import take_in

    parser = argparse.ArgumentParser(prog="python -m experiments take-in", description=_COMMANDS["take-in"])
    parser.add_argument("output", type=Path, help="output folder of `make accelerator`, or a folder of its archives")
    parser.add_argument("--results", type=Path, default=take_in.RESULTS, help="directory of records and page")
    parser.add_argument(
        "--readme", type=Path, default=take_in.README, help="README whose generated part is written anew"
    )
    parser.add_argument("--zoo", type=Path, help="directory of networks; by default jaxattr/zoo")
    parser.add_argument("--data-dir", help="directory of data sets, to measure rounded weights")
    given = vars(parser.parse_args(arguments))
    print("\n".join(take_in.take_in(given.pop("output"), **given)))
    return 0


def _join(distributed: bool) -> None:
    """Join the other processes of a distributed run before the first array is made."""
    import jax

    if distributed:
        jax.distributed.initialize()


def _is_first() -> bool:
    import jax

    return jax.process_index() == 0


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
