"""A page from blocks: headings that are linked, words as Markdown, cells that are no HTML."""

import base64
import html.parser
import re

import pytest

from jaxattr.audit.blocks import Block, markdown, of_table, page, words
from jaxattr.audit.columns import Table

TABLE = Table(
    "Numbers & more", ("model", "x < y", "p (paper)"), (("<b>a</b>", "1 < 2", "(3)"), ("b", "held", "not held"))
)
BLOCKS = [
    Block(1, "A <title>", "First *words*, and <script>alert(1)</script>."),
    of_table(2, TABLE, "What it shows."),
    Block(3, "Inside, twice"),
    Block(3, "Inside, twice", figures=("maps-a",)),
    Block(4, "Deep"),
    Block(4, "Drawn", figures=("maps-a", "maps-b")),
    Block(2, "Settings", table=TABLE, folded=True),
]
IMAGES = {"maps-a": b"\x89PNG a", "maps-b": b"\x89PNG b"}


class Reader(html.parser.HTMLParser):
    """What a browser makes of a page: its tags, and the words within each."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [(name, value) for name, value in attributes if name in ("href", "id", "src")]
        self.found.append([tag, ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.found:
            self.found[-1][1] += data

    def of(self, tag):
        return [text.strip() for name, text in self.found if name == tag]


@pytest.fixture(scope="module")
def text():
    return page(BLOCKS, IMAGES, "Window & co")


def test_words_and_cells_are_no_html(text):
    read = Reader(text)
    assert read.open == []
    assert "script" not in {tag for tag, _ in read.found}
    assert "b" not in {tag for tag, _ in read.found}
    assert read.of("title") == ["Window & co"]
    assert read.of("h1")[0] == "A <title>"
    assert "words, and <script>alert(1)</script>." in "".join(text for _, text in read.found)
    assert "<b>a</b>" in read.of("td")
    assert "1 < 2" in read.of("td")
    assert "x < y" in read.of("th")


def test_headings_are_linked_and_titles_may_repeat(text):
    read = Reader(text)
    places = [value for name, value in read.links if name == "id"]
    targets = [value.removeprefix("#") for name, value in read.links if name == "href"]
    assert len(set(places)) == len(places)
    # Not the first heading, nor one without a figure below the third level, nor what is folded.
    assert len(targets) == len(set(targets)) == 4
    assert set(targets) < set(places)
    linked = dict(re.findall(r'<h\d id="(b\d+)">([^<]*)</h\d>', text))
    assert [linked[target] for target in targets] == ["Numbers &amp; more", "Inside, twice", "Inside, twice", "Drawn"]


def test_a_folded_block_is_hidden_until_it_is_opened(text):
    (inside,) = re.findall(r"<details><summary>Settings</summary>(.*?)</details>", text, re.DOTALL)
    assert "<table>" in inside
    assert text.count("<table>") == 2
    assert "Settings</h2>" not in text


def test_figures_are_part_of_the_page(text):
    sources = [value for name, value in Reader(text).links if name == "src"]
    encoded = [f"data:image/png;base64,{base64.b64encode(IMAGES[name]).decode()}" for name in ("maps-a", "maps-b")]
    assert sources == [encoded[0], *encoded]
    with pytest.raises(Exception, match="absent"):
        page([Block(2, "a", figures=("absent",))], {}, "")


def test_verdicts_and_the_numbers_of_others_are_marked(text):
    for mark, cell in (("held", "held"), ("not", "not held"), ("paper", "(3)"), ("key", "b")):
        assert f'<td class="{mark}">{cell}</td>' in text
    assert '<th class="paper">p (paper)</th>' in text
    assert '<th class="key">model</th>' in text


def test_the_same_blocks_are_markdown():
    text = markdown(BLOCKS)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [f"{'#' * block.level} {block.title}" for block in BLOCKS]
    assert "- [Numbers & more](#numbers--more)\n  - [Inside, twice](#inside-twice)\n" in text
    assert text.index("- [Numbers") < text.index("## Numbers")
    assert "![Drawn](figures/maps-b.png)" in text
    assert TABLE.markdown() in text
    assert "What it shows." in text


def test_blocks_below_a_page_have_no_contents():
    assert markdown(BLOCKS[1:3]).startswith("## Numbers & more\n\nWhat it shows.\n\n| model ")
    assert "](#" not in markdown(BLOCKS[1:3])
    assert markdown([]) == ""


def test_a_table_brings_its_title_and_legend():
    block = of_table(3, Table("Title", ("a",), (("1",),), legend="What a is."), "First.")
    assert (block.level, block.title, block.text) == (3, "Title", "First.\n\nWhat a is.")
    assert of_table(3, TABLE).text == ""


def test_an_empty_table_is_not_shown():
    empty = Block(2, "Empty", "words", Table("Empty", ("a",), ()))
    assert "| a |" not in markdown([empty])
    assert "<table>" not in page([empty], {}, "")


def test_words_that_are_missing_are_an_error(tmp_path):
    (tmp_path / "words.md.j2").write_text("{% macro greet(name) -%}\nHello {{ name }}, {{ other }}\n{%- endmacro %}")
    with pytest.raises(Exception, match="other"):
        words(tmp_path).greet("you")
    with pytest.raises(AttributeError):
        words().absent  # noqa: B018
