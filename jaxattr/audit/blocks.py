"""Render the page of Wang and Kong 2023 from its blocks, as HTML and as Markdown."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2


class Block(NamedTuple):
    """A piece of the page: a heading, words, a table (first row: the head) and a figure, each if there is one."""

    level: int
    title: str
    text: str = ""
    rows: Sequence[Sequence[str]] = ()
    keys: int = 1
    figure: str = ""


def markdown(blocks: Sequence[Block]) -> str:
    """Render all blocks as Markdown; a page, which begins with a first-level heading, has its contents below that."""
    parts = [_markdown(block) for block in blocks]
    if blocks and blocks[0].level == 1:
        parts.insert(1, _contents(blocks))
    return "\n".join(parts)


def page(blocks: Sequence[Block], images: Mapping[str, bytes]) -> str:
    """Render one HTML file that includes its figures, PNGs by name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    encoded = {name: base64.b64encode(image).decode() for name, image in images.items()}
    return environment.get_template("paper.html.j2").render(blocks=blocks, images=encoded)


def _contents(blocks: Sequence[Block]) -> str:
    """List links to headings, as GitHub names them: words and hyphens alone."""
    shown = [block for block in blocks if block.level in (2, 3) or block.figure]

    def anchor(title: str) -> str:
        return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")

    return "\n".join(f"{'  ' * (block.level > 2)}- [{block.title}](#{anchor(block.title)})" for block in shown) + "\n"


def _markdown(block: Block) -> str:
    text = block.text if block.text.startswith("- ") else block.text.replace("\n", "\n\n")
    parts = [f"{'#' * block.level} {block.title}", text]
    if block.rows:
        rule = ["---"] * block.keys + ["--:"] * (len(block.rows[0]) - block.keys)
        parts.append("\n".join("| " + " | ".join(row) + " |" for row in (block.rows[0], rule, *block.rows[1:])))
    if block.figure:
        parts.append(f"![{block.title}](figures/{block.figure}.png)")
    return "\n\n".join(part for part in parts if part) + "\n"
