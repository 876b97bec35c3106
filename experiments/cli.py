"""Parse the command line (a preset, and changes of its fields), and run the command."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from experiments._options import (
    PRESETS_IN_WORDS,
    Main,
    add,
    command_line,
    describe_presets,
    is_first,
    join,
    not_asked_for,
    peek,
    resolved,
    start_of,
    with_config,
)
from experiments.audits.config import Config
from experiments.audits.presets import PRESETS
from experiments.papers.commands import paper_commands
from experiments.training import accuracies, recipes, train
from experiments.training.recipes import Training
from experiments.training.train import TrainConfig
from jaxattr.audit import plugins
from jaxattr.audit.workers import log_to_stderr


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 for a training that failed, 2 for wrong usage and files in the way.

    Raises:
      SystemExit: with that status, for help and for usage errors.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr()
    # Import slow modules after help and usage errors, which need none of them.
    from jaxattr.audit.run_directory import StoreError
    from jaxattr.parallel import GaveUp

    try:
        plugins.load()
        app = _app(arguments)
        return app.cli(prog="python -m experiments", description="Scripted experiments.", args=arguments)
    # The ImportError of an optional package says how to install it.
    except (StoreError, GaveUp, ValueError, FileNotFoundError, FileExistsError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def parse_audit(arguments: Sequence[str], directory: Callable[[str, str], Path] | None = None) -> tuple[str, Config]:
    """Parse the name of the preset and the resolved configuration of ``audit``.

    Args:
      arguments: arguments of the command line, after the command.
      directory: function from data set and preset to the default output.
    """

    def run(preset: str, config: Config) -> Any:
        return preset, resolved(preset, config, directory)

    return _single(with_config(run, arguments, "cpu" if directory else "demo"), arguments)


def parse_train(arguments: Sequence[str]) -> TrainConfig:
    """Parse the resolved configuration of ``train``."""
    return _single(_training(arguments, lambda config: config), arguments)


def _app(arguments: list[str]) -> SubcommandApp:
    """Build the commands; only the one that is asked for gets its options, which depend on preset and data set."""
    app = SubcommandApp()
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    for name, (make, words) in _COMMANDS.items():
        asked = name == command
        function = make(rest) if asked else not_asked_for
        if asked and not isinstance(function, SubcommandApp):
            function.__doc__ = f"{words[0].upper()}{words[1:]}.\n\n{function.__doc__ or ''}"
        add(app, function, name=name, help=None if asked and not isinstance(function, SubcommandApp) else words)
    return app


def _single(function: Callable[..., Any], arguments: Sequence[str]) -> Any:
    app = SubcommandApp()
    add(app, function, name="command")
    add(app, not_asked_for, name="other")
    return app.cli(args=["command", *arguments])


def _training(arguments: Sequence[str], function: Callable[[TrainConfig], Any]) -> Callable[..., Any]:
    given = peek(arguments, "--preset")
    name = given if given in recipes.PRESETS else "cpu"
    start = TrainConfig(training=Training(preset=name))  # pyright: ignore[reportArgumentType]

    def command(
        config: Annotated[TrainConfig, arg(name="")] = start,
        preset: Literal[tuple(recipes.PRESETS)] = "cpu",  # pyright: ignore[reportInvalidTypeForm]
    ) -> Any:
        del preset  # it has chosen the defaults
        return function(train.resolve(config))

    command.__doc__ = describe_presets(
        recipes.PRESETS, "Name of the recipe to start from; every other option changes one."
    )
    return command


def _train(arguments: list[str]) -> Main:
    def run(config: TrainConfig) -> int:
        join(config.distributed)
        card = train.train(config, progress=True)
        if is_first():
            print(f"{config.dataset}, {config.defense}: {accuracies.describe(card)}")
            print(f"Weights and card: {config.output}/network.npz, .json")
        return 0

    return _training(arguments, run)


def _audit(arguments: list[str]) -> Main:
    def run(preset: str, config: Config) -> int:
        from experiments.audits.run import audit

        config = resolved(preset, config)
        join(config.distributed)
        store = audit(config, command=command_line("audit", arguments))
        if is_first():
            print(_page(store))
        return 0

    return with_config(run, arguments, "demo")


def _seeds(arguments: list[str]) -> Main:
    def run(preset: str, config: Config, seeds: int) -> int:
        from experiments.audits import seeds as repeat

        config = resolved(preset, config)
        join(config.distributed)
        print(repeat.run(config, seeds))
        print(f"Table: {config.output}/table.md\nAll numbers: {config.output}/seeds.csv")
        return 0

    start = start_of(arguments, "demo")

    def command(
        config: Annotated[Config, arg(name="")] = start,
        preset: Literal[tuple(PRESETS)] = "demo",  # pyright: ignore[reportInvalidTypeForm]
        seeds: int = 5,
    ) -> int:
        return run(preset, config, seeds)

    command.__doc__ = describe_presets(PRESETS_IN_WORDS, "  seeds: Number of seeds.\n")
    return command


def _report(_: list[str]) -> Main:
    def report(directory: Positional[Path], skip_damaged: bool = False) -> int:
        """Write tables and page of a run again.

        Args:
          directory: directory of a run, such as results/demo
          skip_damaged: leave out files of rows that cannot be read
        """
        from jaxattr.audit.store import Store

        print(_page(Store(directory, Config, skip_damaged=skip_damaged)))
        return 0

    return report


def _publish(_: list[str]) -> Main:
    def publish(
        run: Positional[Path],
        name: Positional[str],
        directory: Path | None = None,
        dtype: Literal["float32", "float16"] | None = None,
        data_dir: str | None = None,
        overwrite: bool = False,
    ) -> int:
        """Add the network of a finished training to the zoo.

        Args:
          run: directory of a finished `train`
          name: name of the network, DATASET/WORD, such as mnist/trades_igr
          directory: directory of the zoo; by default jaxattr/zoo
          dtype: type of the stored weights; by default float32, if the file is then small enough
          data_dir: directory of data prepared by TFDS, to measure rounded weights
          overwrite: replace a network of this name
        """
        from experiments.training.publish import publish as add

        path = add(run, name, directory=directory, dtype=dtype, data_dir=data_dir, overwrite=overwrite)
        print(f"{name}: {path}")
        return 0

    return publish


def _pack_data(_: list[str]) -> Main:
    def pack_data(
        datasets: tuple[str, ...],
        output: Path = Path("packed"),
        data_dir: str | None = None,
        train_samples: int | None = None,
    ) -> int:
        """Pack prepared data sets into one file each, for machines without TFDS.

        Args:
          datasets: data sets, such as mnist, cifar10_jpeg
          output: directory of the files
          data_dir: directory of data prepared by TFDS
          train_samples: number of training samples, from the first one; by default all
        """
        from experiments.accelerator.pack_data import pack

        for path in pack(datasets, output, data_dir=data_dir, train_samples=train_samples):
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
        return 0

    return pack_data


def _take_in(_: list[str]) -> Main:
    from experiments.accelerator import take_in as taking

    def take_in(
        output: Positional[Path],
        results: Path = taking.RESULTS,
        readme: Path = taking.README,
        zoo: Path | None = None,
        data_dir: str | None = None,
    ) -> int:
        """Take in what `make accelerator` left: tables, records, networks.

        Args:
          output: output folder of `make accelerator`, or a folder of its archives
          results: directory of records and page
          readme: README whose generated part is written anew
          zoo: directory of networks; by default jaxattr/zoo
          data_dir: directory of data sets, to measure rounded weights
        """
        done = taking.take_in(output, results=results, readme=readme, zoo=zoo, data_dir=data_dir)
        print("\n".join(done))
        return 0

    return take_in


_COMMANDS: Mapping[str, tuple[Callable[[list[str]], Any], str]] = {
    "train": (_train, "train a network with a defense; write checkpoints, weights and a card"),
    "audit": (_audit, "train or take networks, bound and attack their explanations; write rows, tables and a page"),
    "seeds": (_seeds, "audit with several seeds; write means and standard errors"),
    "paper": (paper_commands, "compute a table or figure of a paper and show it beside the paper's, or write its page"),
    "report": (_report, "write tables and page of a run again"),
    "publish": (_publish, "add the network of a finished training to the zoo"),
    "pack-data": (_pack_data, "pack prepared data sets into one file each, for machines without TFDS"),
    "take-in": (_take_in, "take in what `make accelerator` left: tables, records, networks"),
}


def _page(store: Any) -> str:
    from experiments.training.objectives import DEFENSES
    from jaxattr.audit.page import render

    return render(store, tuple(DEFENSES))
