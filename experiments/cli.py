"""Parse the command line (a preset, and changes of its fields), and run the command."""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from experiments import papers
from experiments.audits.config import Config, resolve
from experiments.audits.presets import PRESETS
from experiments.audits.presets import preset as preset_of
from experiments.training import accuracies, recipes, train
from experiments.training.recipes import Training
from experiments.training.train import TrainConfig
from jaxattr.audit import plugins
from jaxattr.audit.workers import log_to_stderr

_Kind = TypeVar("_Kind")
Main = Callable[..., int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 for a training that failed, 2 for wrong usage and files in the way."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr()
    # Import slow modules after help and usage errors, which need none of them.
    from jaxattr.audit.run_directory import StoreError

    try:
        plugins.load()
        app = _app(arguments)
        return app.cli(prog="python -m experiments", description="Scripted experiments.", args=arguments)
    # The ImportError of an optional package says how to install it.
    except (StoreError, ValueError, FileNotFoundError, FileExistsError, ImportError) as error:
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
        return preset, _resolved(preset, config, directory)

    return _single(_with_config(run, arguments, "cpu" if directory else "demo"), arguments)


def parse_train(arguments: Sequence[str]) -> TrainConfig:
    """Parse the resolved configuration of ``train``."""
    return _single(_training(arguments, lambda config: config), arguments)


def _app(arguments: list[str]) -> SubcommandApp:
    """Build the commands; only the one that is asked for gets its options, which depend on preset and data set."""
    app = SubcommandApp()
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    for name, (make, words) in _COMMANDS.items():
        asked = name == command
        function = make(rest) if asked else _not_asked_for
        if asked and not isinstance(function, SubcommandApp):
            function.__doc__ = f"{words[0].upper()}{words[1:]}.\n\n{function.__doc__ or ''}"
        _add(app, function, name=name, help=None if asked and not isinstance(function, SubcommandApp) else words)
    return app


def _add(app: SubcommandApp, function: Any, name: str = "", help: str | None = None) -> None:
    """Add a command, or a group of them, to a group."""
    app.command(function, name=name or function.__name__, help=help)


def _not_asked_for() -> int:
    return 0


def _single(function: Callable[..., Any], arguments: Sequence[str]) -> Any:
    app = SubcommandApp()
    _add(app, function, name="command")
    _add(app, _not_asked_for, name="other")
    return app.cli(args=["command", *arguments])


def _peek(arguments: Sequence[str], option: str) -> str | None:
    """Return an option on which the defaults of the others depend, before these are parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(option)
    return getattr(parser.parse_known_args(arguments)[0], option.lstrip("-"))


def _start(arguments: Sequence[str], default: str) -> Config:
    """Return the configuration of the preset that the command line names, for its data set."""
    given = _peek(arguments, "--preset")
    name = given if given is not None and given in PRESETS else default
    return preset_of(name, _peek(arguments, "--dataset"))


def _with_config(function: Callable[[str, Config], Any], arguments: Sequence[str], default: str) -> Callable[..., Any]:
    """Build a command with all options of an audit, whose defaults are those of the preset for the data set."""
    start = _start(arguments, default)

    def command(
        config: Annotated[Config, arg(name="")] = start,
        preset: Literal[tuple(PRESETS)] = default,  # pyright: ignore[reportInvalidTypeForm]
    ) -> Any:
        return function(preset, config)

    command.__doc__ = _about(PRESETS_IN_WORDS, "Name of the settings to start from; every other option changes one.")
    return command


def _training(arguments: Sequence[str], function: Callable[[TrainConfig], Any]) -> Callable[..., Any]:
    given = _peek(arguments, "--preset")
    name = given if given in recipes.PRESETS else "cpu"
    start = TrainConfig(training=Training(preset=name))  # pyright: ignore[reportArgumentType]

    def command(
        config: Annotated[TrainConfig, arg(name="")] = start,
        preset: Literal[tuple(recipes.PRESETS)] = "cpu",  # pyright: ignore[reportInvalidTypeForm]
    ) -> Any:
        del preset  # it has chosen the defaults
        return function(train.resolve(config))

    command.__doc__ = _about(recipes.PRESETS, "Name of the recipe to start from; every other option changes one.")
    return command


PRESETS_IN_WORDS = {name: words for name, (words, _) in PRESETS.items()}


def _about(presets: Mapping[str, str], words: str) -> str:
    listed = "\n".join(f"  --preset {name}: {said}" for name, said in presets.items())
    about = "Start from a preset, and change any of its fields."
    return f"{about}\n\n{listed}\n\nArgs:\n  config: Options.\n  preset: {words}\n"


def _resolved(preset: str, config: Config, directory: Callable[[str, str], Path] | None = None) -> Config:
    if directory is not None and config.output is None:
        config = dataclasses.replace(config, output=str(directory(config.dataset, preset)))
    return resolve(config, preset)


def _train(arguments: list[str]) -> Main:
    def run(config: TrainConfig) -> int:
        _join(config.distributed)
        card = train.train(config, progress=True)
        if _is_first():
            print(f"{config.dataset}, {config.defense}: {accuracies.describe(card)}")
            print(f"Weights and card: {config.output}/network.npz, .json")
        return 0

    return _training(arguments, run)


def _audit(arguments: list[str]) -> Main:
    def run(preset: str, config: Config) -> int:
        from experiments.audits.run import audit

        config = _resolved(preset, config)
        _join(config.distributed)
        store = audit(config, command=_shown("audit", arguments))
        if _is_first():
            print(_page(store))
        return 0

    return _with_config(run, arguments, "demo")


def _seeds(arguments: list[str]) -> Main:
    def run(preset: str, config: Config, seeds: int) -> int:
        from experiments.audits import seeds as repeat

        config = _resolved(preset, config)
        _join(config.distributed)
        print(repeat.run(config, seeds))
        print(f"Table: {config.output}/table.md\nAll numbers: {config.output}/seeds.csv")
        return 0

    start = _start(arguments, "demo")

    def command(
        config: Annotated[Config, arg(name="")] = start,
        preset: Literal[tuple(PRESETS)] = "demo",  # pyright: ignore[reportInvalidTypeForm]
        seeds: int = 5,
    ) -> int:
        return run(preset, config, seeds)

    command.__doc__ = _about(PRESETS_IN_WORDS, "Name of the settings to start from.") + "  seeds: Number of seeds.\n"
    return command


def _paper(arguments: list[str]) -> SubcommandApp:
    """Build the commands of all papers; only those of the paper that is asked for have their tables."""
    app = SubcommandApp()
    name = arguments[0] if arguments else ""
    for known in papers.PAPERS:
        _add(app, _of_paper(known, arguments[1:]) if known == name else _two(), name=known, help=_cite(known, name))
    # A union needs two members.
    if len(papers.PAPERS) == 1:
        _add(app, _list_papers, name="list", help="list the papers")
    return app


def _list_papers() -> int:
    print("\n".join(f"{name}: {papers.get(name).cite}" for name in papers.PAPERS))
    return 0


def _two() -> SubcommandApp:
    app = SubcommandApp()
    for name in ("table", "figure", "report"):
        _add(app, _not_asked_for, name=name)
    return app


def _cite(known: str, asked: str) -> str:
    return papers.get(known).cite if known == asked else f"tables, figures and report of {known}"


def _of_paper(name: str, arguments: list[str]) -> SubcommandApp:
    paper = papers.get(name)
    app = SubcommandApp()
    rest = arguments[1:]
    for kind, known in (("table", paper.tables), ("figure", paper.figures)):
        words = f"compute what a {kind} of {paper.cite} needs, and show it beside the paper's: {', '.join(known)}"
        if arguments[:1] == [kind] and known:
            piece = _piece(paper, kind, tuple(known), rest)
            piece.__doc__ = f"{words[0].upper()}{words[1:]}.\n\n{piece.__doc__}"
            _add(app, piece, name=kind)
        else:
            _add(app, _not_asked_for, name=kind, help=words)

    def report(runs: Path = paper.runs, output: Path = paper.results, skip_damaged: bool = False) -> int:
        """Write the page of the paper from everything that has results.

        Args:
          runs: directory of the runs
          output: directory of the report
          skip_damaged: leave out files of rows that cannot be read
        """
        from experiments.papers import report, run

        report.render(paper, run.stores(paper, runs, skip_damaged), output)
        print(f"Page: {output / 'index.html'}\nMarkdown: {output / 'report.md'}")
        return 0

    _add(app, report, "report", f"write the page of {paper.cite} from everything that has results")
    return app


def _piece(paper: Any, kind: str, names: tuple[str, ...], arguments: list[str]) -> Main:
    """Build the command of one kind of a paper's results."""

    def directory(dataset: str, preset: str) -> Path:
        return paper.runs / f"{dataset}-{preset}"

    start = _start(arguments, "cpu")

    def command(
        name: Positional[Literal[names]],  # pyright: ignore[reportInvalidTypeForm]
        config: Annotated[Config, arg(name="")] = start,
        preset: Literal[tuple(PRESETS)] = "cpu",  # pyright: ignore[reportInvalidTypeForm]
    ) -> int:
        from experiments.papers import report, run

        config = _resolved(preset, config, directory)
        _join(config.distributed)
        store = run.compute(paper, kind, name, config, _shown("paper", [paper.name, kind, *arguments]))
        if _is_first():
            shown = report.table if kind == "table" else report.figure
            print(shown(paper, name, store))
            print(f"Rows: {store.directory} (preset {preset}). All: python -m experiments paper {paper.name} report")
        return 0

    command.__doc__ = _about(PRESETS_IN_WORDS, "Name of the settings to start from.") + f"  name: Name of the {kind}.\n"
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
    "paper": (_paper, "compute a table or figure of a paper and show it beside the paper's, or write its page"),
    "report": (_report, "write tables and page of a run again"),
    "publish": (_publish, "add the network of a finished training to the zoo"),
    "pack-data": (_pack_data, "pack prepared data sets into one file each, for machines without TFDS"),
    "take-in": (_take_in, "take in what `make accelerator` left: tables, records, networks"),
}


def _page(store: Any) -> str:
    from experiments.training.objectives import DEFENSES
    from jaxattr.audit.page import render

    return render(store, tuple(DEFENSES))


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
