"""Tables and page of a run, and what they say of it."""

import json
import re

import pytest
from small_audits import stored

from jaxattr.audit import page
from jaxattr.audit.page import render


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of words: figures, which every page draws again, are not drawn."""
    monkeypatch.setattr(page, "_figures", lambda *_: {"bound-against-attack": b"", "gaps": b""})


def test_the_page_and_the_table_of_a_run(run):
    table = (run / "table.md").read_text()
    lines = [line for line in table.splitlines() if line.startswith(("| plain", "| other"))]
    # Accuracies, and five tables of (models) x (norms) lines.
    assert len(lines) == 2 + 5 * 4
    text = (run / "index.html").read_text()
    assert text.count("data:image/png;base64,") == 2 + 4
    for kind in ("bound-against-attack", "gaps", "maps-plain-saliency-l2"):
        assert (run / "figures" / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    assert "saliency, plain model, l-infinity" not in table
    assert "python my_audit.py" in text
    assert "python my_audit.py" in table
    assert (run / "summary.csv").read_text().count("\n") == 1 + 4


def test_a_page_is_written_again_from_rows(copy, undrawn):
    expected = (copy / "table.md").read_text()
    for name in ("index.html", "table.md", "summary.csv"):
        (copy / name).unlink()
    shown = render(stored(copy), ("plain", "other"))
    assert (copy / "table.md").read_text() == expected
    assert (copy / "summary.csv").exists()
    assert "### Angles and ranks" in shown
    assert shown.endswith(f"Page: {copy / 'index.html'}")


def test_models_have_their_order_and_what_is_measured_of_them(copy, undrawn):
    path = copy / "models" / "other" / "network.json"
    card = json.loads(path.read_text())
    head = "| model | accuracy, % | under PGD, l-infinity, % | its epsilon |"
    for order, names in ((("plain", "other"), ["plain", "other"]), ((), ["other", "plain"])):
        lines = render(stored(copy), order).splitlines()
        first = lines.index(head) + 2
        assert [line.split(" | ")[0] for line in lines[first : first + 2]] == [f"| {name}" for name in names]
        assert lines[first].endswith("| 75.0 | 50.0 | 0.1 |")
    # A card without accuracies has no line.
    path.write_text(json.dumps({name: value for name, value in card.items() if name != "accuracy"}))
    lines = render(stored(copy)).splitlines()
    assert lines[lines.index(head) + 3] == ""


def test_kinks_that_were_allowed_are_said_beside_the_tables(copy, undrawn):
    assert "Not smooth" not in (copy / "table.md").read_text()
    assert "Not smooth" not in (copy / "index.html").read_text()
    path = copy / "models" / "plain" / "network.json"
    card = json.loads(path.read_text())
    card["model"]["options"]["beta"] = None
    path.write_text(json.dumps(card))
    shown = render(stored(copy))
    for text in (shown, (copy / "table.md").read_text(), (copy / "index.html").read_text()):
        assert re.search(r"Not smooth: plain \(\d\)", text)


def test_settings_of_the_run_and_of_each_training_are_listed(copy, undrawn):
    (copy / "timings.json").write_text(json.dumps({"bounds and attacks": 12.5}))
    render(stored(copy))
    text = (copy / "index.html").read_text()
    settings = re.findall(r"<details>.*</details>", text, re.DOTALL)[0]
    for name, value in (
        ("hash of the run", stored(copy).hash),
        ("smoothing", "0.5"),
        ("num_samples", "16"),
        ("l2", "0.05"),
        ("training.plain.epochs", "1"),
        ("seconds, bounds and attacks", "12.5"),
    ):
        assert f'<td class="key">{name}</td><td class="">{value}</td>' in settings
    assert '<td class="key">jax</td>' in settings
