"""Run the evaluations of papers again, one folder each, named by the first author and the year.

A paper is a :class:`experiments.papers.paper.Paper`, the value ``PAPER`` of its folder, and one line here.
"""

import importlib
from typing import Any

PAPERS: dict[str, Any] = {
    "wang2023": "experiments.papers.wang2023",
}
"""Papers by name: modules whose ``PAPER`` is read when it is asked for, or papers."""


def get(name: str) -> Any:
    """Return a paper by name.

    Raises:
      ValueError: if there is none of this name.
    """
    if name not in PAPERS:
        raise ValueError(f"the paper is {name!r}; there are {', '.join(PAPERS)}.")
    found = PAPERS[name]
    return importlib.import_module(found).PAPER if isinstance(found, str) else found
