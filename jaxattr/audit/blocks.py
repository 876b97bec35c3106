"""Render a page from its blocks, as HTML and as Markdown: one template for audits and papers."""

import base64
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markdown_it
import markupsafe

from jaxattr.audit.columns import Table

_HERE = Path(__file__).parent


class Block(NamedTuple):
    """A piece of a page: a heading, words (Markdown), a table and figures, each if there is one.

    Attributes:
      level: of the heading, 1 to 4.
      title: of the block.
      text: words, paragraphs with an empty line between them.
      table: a table.
      figures: names of figures.
      folded: whether HTML hides the block until it is opened.
    """

    level: int
    title: str
    text: str = ""
    table: Table | None = None
    figures: tuple[str, ...] = ()
    folded: bool = False


def of_table(level: int, table: Table, text: str = "") -> Block:
    """Make a block of a table, whose title it has, with its legend."""
    return Block(level, table.title, "\n\n".join(filter(None, [text, table.legend])), table)


@functools.cache
def words(directory: Path = _HERE) -> Any:
    """Return the words of a page: the macros of ``words.md.j2`` in a directory."""
    loader = jinja2.FileSystemLoader(directory)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.get_template("words.md.j2").module


def markdown(blocks: Sequence[Block]) -> str:
    """Render all blocks as Markdown; a page, which begins with a first-level heading, has its contents below that."""
    parts = [_markdown(block) for block in blocks]
    if blocks and blocks[0].level == 1:
        parts.insert(1, _contents(blocks))
    return "\n".join(parts)


def page(blocks: Sequence[Block], images: Mapping[str, bytes], title: str) -> str:
    """Render one HTML file that includes its figures.

    Args:
      blocks: of the page.
      images: PNGs by name.
      title: of the browser's window.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    encoded = {name: base64.b64encode(image).decode() for name, image in images.items()}
    # Links to headings are by number: titles repeat.
    prose = markdown_it.MarkdownIt("commonmark", {"html": False})
    return environment.get_template("page.html.j2").render(
        title=title,
        blocks=blocks,
        images=encoded,
        prose=lambda text: markupsafe.Markup(prose.render(text)),
    )


def _contents(blocks: Sequence[Block]) -> str:
    """List links to headings, as GitHub names them: words and hyphens alone."""
    shown = [block for block in blocks if block.level in (2, 3) or block.figures]

    def anchor(title: str) -> str:
        return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")

    return "\n".join(f"{'  ' * (block.level > 2)}- [{block.title}](#{anchor(block.title)})" for block in shown) + "\n"


def _markdown(block: Block) -> str:
    parts = [f"{'#' * block.level} {block.title}", block.text]
    parts += [block.table.markdown()] if block.table is not None and block.table.rows else []
    parts += [f"![{block.title}](figures/{name}.png)" for name in block.figures]
    return "\n\n".join(part for part in parts if part) + "\n"
