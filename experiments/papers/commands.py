"""Build the commands of papers: ``paper NAME table NUMBER``, ``figure NAME``, ``report``."""

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from experiments import papers
from experiments._options import (
    PRESETS_IN_WORDS,
    Main,
    add,
    command_line,
    describe_presets,
    is_first,
    join,
    not_asked_for,
    resolved,
    start_of,
)
from experiments.audits.config import Config
from experiments.audits.presets import PRESETS


def paper_commands(arguments: list[str]) -> SubcommandApp:
    """Build the commands of all papers; only those of the paper that is asked for have their tables."""
    app = SubcommandApp()
    name = arguments[0] if arguments else ""
    for known in papers.PAPERS:
        add(app, _of_paper(known, arguments[1:]) if known == name else _two(), name=known, help=_cite(known, name))
    # A union needs two members.
    if len(papers.PAPERS) == 1:
        add(app, _list_papers, name="list", help="list the papers")
    return app


def _list_papers() -> int:
    print("\n".join(f"{name}: {papers.get(name).cite}" for name in papers.PAPERS))
    return 0


def _two() -> SubcommandApp:
    app = SubcommandApp()
    for name in ("table", "figure", "report"):
        add(app, not_asked_for, name=name)
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
            add(app, piece, name=kind)
        else:
            add(app, not_asked_for, name=kind, help=words)

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

    add(app, report, "report", f"write the page of {paper.cite} from everything that has results")
    return app


def _piece(paper: Any, kind: str, names: tuple[str, ...], arguments: list[str]) -> Main:
    """Build the command of one kind of a paper's results."""

    def directory(dataset: str, preset: str) -> Path:
        return paper.runs / f"{dataset}-{preset}"

    start = start_of(arguments, "cpu")

    def command(
        name: Positional[Literal[names]],  # pyright: ignore[reportInvalidTypeForm]
        config: Annotated[Config, arg(name="")] = start,
        preset: Literal[tuple(PRESETS)] = "cpu",  # pyright: ignore[reportInvalidTypeForm]
    ) -> int:
        from experiments.papers import report, run

        config = resolved(preset, config, directory)
        join(config.distributed)
        store = run.compute(paper, kind, name, config, command_line("paper", [paper.name, kind, *arguments]))
        if is_first():
            shown = report.table if kind == "table" else report.figure
            print(shown(paper, name, store))
            print(f"Rows: {store.directory} (preset {preset}). All: python -m experiments paper {paper.name} report")
        return 0

    command.__doc__ = describe_presets(PRESETS_IN_WORDS, f"  name: Name of the {kind}.\n")
    return command
