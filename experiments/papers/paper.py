"""Describe a paper as a value: what each of its tables, figures and claims is of, and what it printed."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from matplotlib.figure import Figure

from jaxattr.audit.blocks import Block, words
from jaxattr.audit.columns import Column, Table


class Needs(NamedTuple):
    """Rows of an audit that a table, a figure or a claim is of.

    Attributes:
      attributions: their labels.
      norms: ``l2``, ``linf``.
      models: names; ``None`` for all of the run.
    """

    attributions: tuple[str, ...]
    norms: tuple[str, ...]
    models: tuple[str, ...] | None = None

    def select(self, lines: pl.DataFrame) -> pl.DataFrame:
        """Select the lines of these rows."""
        chosen = lines.filter(pl.col("attribution").is_in(self.attributions), pl.col("norm").is_in(self.norms))
        return chosen if self.models is None else chosen.filter(pl.col("model").is_in(self.models))


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """A table of a paper.

    Attributes:
      title: of the table.
      of: the rows that it shows.
      columns: what the paper has, too.
      beyond: further columns of the same run, in a table of their own.
      one_radius: whether it is of the data set's main radius, and not of all.
      decimals: of the paper's numbers, so that they are found by searching for them.
      ranked: whether the order of the models is compared with the paper's, column by column.
    """

    title: str
    of: Needs
    columns: Sequence[Column]
    beyond: Sequence[Column] = ()
    one_radius: bool = True
    decimals: int = 4
    ranked: bool = True


@dataclasses.dataclass(frozen=True)
class PaperFigure:
    """A figure of a paper, drawn from lines of an audit, or from values that are computed for it.

    Attributes:
      title: of the figure.
      of: the rows that it shows; for values, those of their models.
      draw: ``draw(paper, record) -> Figure``, or ``draw(paper, values, config)`` where values are computed; ``None``
        where there is nothing to draw.
      compute: ``compute(store, config, models) -> values``, one dictionary each, of a few samples of each model.
    """

    title: str
    of: Needs
    draw: Callable[..., Figure | None]
    compute: Callable[[Any, Any, Sequence[str]], list[dict[str, Any]]] | None = None


class Claim(NamedTuple):
    """A statement of a paper, and a run's verdict on it.

    Attributes:
      text: the statement.
      n: number of samples of each model, in words.
      figure: the number that decides.
      held: whether the run confirms the statement; ``None`` if the result could be chance.
    """

    text: str
    n: str
    figure: str
    held: bool | None


def _nothing(*_: Any) -> list[Any]:
    return []


def _no_values(*_: Any) -> dict[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True)
class Paper:
    """A paper whose evaluation is run again.

    Attributes:
      name: in commands and paths: the first author and the year, such as ``wang2023``.
      cite: how people cite it, such as ``Wang and Kong 2023``.
      title: of the page.
      directory: with ``published/table_NUMBER.csv`` and the words of the page, ``words.md.j2``.
      models: our names of models, in the order of the paper, and its names.
      datasets: data sets in the order of the page, and their titles.
      same_data: data sets of ours that are one of the paper's under another name.
      tables: by number.
      figures: by name.
      claims: ``claims(paper, record) -> [Claim]``.
      of_run: ``of_run(paper, record) -> [Block]``: what else the page has of a run.
      of_all: ``of_all(paper, records) -> [Table]``: what it has at its end.
      keeps: ``keeps(paper, store) -> dict``: values of a run that are stored with its record.
      settings: ``settings(paper, record) -> dict``: values of the macro ``settings``, the words below a run's heading.
    """

    name: str
    cite: str
    title: str
    directory: Path
    models: Mapping[str, str] = dataclasses.field(default_factory=dict)
    datasets: Mapping[str, str] = dataclasses.field(default_factory=dict)
    same_data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, PaperTable] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, PaperFigure] = dataclasses.field(default_factory=dict)
    claims: Callable[["Paper", Any], list[Claim]] = _nothing
    of_run: Callable[["Paper", Any], list[Block]] = _nothing
    of_all: Callable[["Paper", Sequence[Any]], list[Table]] = _nothing
    keeps: Callable[["Paper", Any], dict[str, Any]] = _no_values
    settings: Callable[["Paper", Any], dict[str, Any]] = _no_values

    @property
    def runs(self) -> Path:
        """The directory of its runs."""
        return Path("runs") / self.name

    @property
    def results(self) -> Path:
        """The directory of its page and of what is kept of its runs."""
        return Path("results") / self.name

    def words(self, name: str, /, **values: Any) -> str:
        """Return words of the page, a macro of ``words.md.j2``; nothing where the paper has none of this name."""
        if not (self.directory / "words.md.j2").exists():
            return ""
        macro = getattr(words(self.directory), name, None)
        return "" if macro is None else str(macro(**values)).strip()

    def published(self, number: str) -> pl.DataFrame:
        """Read the printed numbers of a table, one line per data set, norm, radius, attribution and model.

        Columns are those of :func:`jaxattr.audit.summary.summarize`; shares are fractions.

        Raises:
          ValueError: if the paper has no results in such a table.
        """
        return _read(self.directory, self.cite, str(number))

    def has(self, dataset: str) -> bool:
        """Whether the paper's tables have a data set of ours."""
        return any(self.published_name(dataset) in self.published(number)["dataset"] for number in self.tables)

    def published_name(self, dataset: str) -> str:
        """Return the name of a data set of ours in the paper's tables, if they have it."""
        return self.same_data.get(dataset, dataset)

    def place(self, model: str) -> int:
        """Return the sort position of a model's rows: models that the paper does not have come first."""
        return list(self.models).index(model) if model in self.models else -1

    def model_name(self, model: str) -> str:
        """Return the paper's name of a model, or ours."""
        return self.models.get(model, model)

    def named(self, lines: pl.DataFrame) -> pl.DataFrame:
        """Replace names of models by the paper's."""
        return lines.with_columns(pl.col("model").replace(self.models))

    def dataset_place(self, dataset: str) -> int:
        """Return the sort position of a data set on the page."""
        return list(self.datasets).index(dataset) if dataset in self.datasets else len(self.datasets)

    def dataset_title(self, dataset: str) -> str:
        """Return a data set's name for readers."""
        return self.datasets.get(dataset, dataset)

    def dataset_name(self, dataset: str) -> str:
        """Return a data set's name in headings and tables."""
        return self.dataset_title(dataset).partition(" (")[0]


_KEYS = {"dataset": pl.String, "norm": pl.String, "epsilon": pl.Float64, "attribution": pl.String, "model": pl.String}


@functools.cache
def _read(directory: Path, cite: str, number: str) -> pl.DataFrame:
    path = directory / "published" / f"table_{number}.csv"
    if path.exists():
        return pl.read_csv(path)
    known = sorted(each.stem.removeprefix("table_") for each in path.parent.glob("table_*.csv"))
    if not known:
        return pl.DataFrame(schema=_KEYS)
    raise ValueError(f"the table is {number!r}; {cite} has results in {', '.join(known)}.")
