"""``search --report``: numbers are those of ``--json`` and of other searches, and text is harmless."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from frontrunner.analysis.report.layouts import PARTS
from frontrunner.analysis.report.table import value_at
from frontrunner.launcher.cli import build
from frontrunner.launcher.layout_report import usual_counts

Call = Callable[..., Result]
LLAMA = ("llama-3-8b", "--machine", "lumi-g", "--nodes", "4", "--seq-len", "4096")
MARKUP = "<img src=x onerror=window.hacked=1>"


def call(*words: str) -> Result:
    return CliRunner().invoke(build(words), list(words))


class Page(HTMLParser):
    """The tags of a page, the text of cells with ``data-key``, and the objects in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: dict[str, str] = {}
        self.objects: dict[str, Any] = {}
        self._key: str | None = None
        self._object: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self._key = given.get("data-key")
        self._object = given.get("id") if given.get("type") == "application/json" else None

    def handle_endtag(self, tag: str) -> None:
        self._key = self._object = None

    def handle_data(self, data: str) -> None:
        if self._key:
            self.cells[self._key] = data
        if self._object:
            self.objects[self._object] = json.loads(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Any]:
    """The page, and what ``--json`` says of the same search."""
    file = tmp_path_factory.mktemp("page") / "layouts.html"
    done = call("search", *LLAMA, "--tokens", "1e9", "--report", str(file), "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["outputs"] == [str(file)]
    return Page(file.read_text()), answer


def test_the_page_holds_the_answer_of_json(made: tuple[Page, Any]) -> None:
    page, answer = made
    found = page.objects["data"]
    for key in ("top", "pareto"):
        plain = [
            {k: v for k, v in entry.items() if k not in ("name", "short", "rank")} for entry in found[key]
        ]
        assert plain == answer[key]
    assert {k: v for k, v in found["recommended"].items() if k != "name"} == answer["recommended"]
    assert [entry["rank"] for entry in found["top"]] == [*range(1, 11)]


def test_every_cell_shows_a_value_of_the_object(made: tuple[Page, Any]) -> None:
    page, _ = made
    assert len(page.cells) > 100
    for key, text in page.cells.items():
        value = value_at(page.objects["data"], key)
        assert value is not None, key
        if isinstance(value, str):
            assert text == value
    leader = page.objects["data"]["leaders"][0]
    assert page.cells["leaders.0.name"] == leader["name"]


def test_figures_of_memory_parts_and_nodes(made: tuple[Page, Any]) -> None:
    page, answer = made
    charts, found = page.objects["charts"], page.objects["data"]
    assert set(charts) == {"pareto", "parts", "nodes"}
    front = charts["pareto"]["data"][1]
    assert front["x"] == [entry["tokens_per_s_per_device"] for entry in answer["pareto"]]
    gib = [entry["peak_memory_bytes_per_device"] / 2**30 for entry in answer["pareto"]]
    assert front["y"] == pytest.approx(gib)
    for entry in found["leaders"]:
        assert sum(entry["step_time_parts_s"][key] for keys in PARTS.values() for key in keys) == (
            pytest.approx(entry["step_time_s"])
        )


def test_the_spread_has_the_fastest_and_the_smallest(made: tuple[Page, Any]) -> None:
    found = made[0].objects["data"]
    speeds = [point["tokens_per_s_per_device"] for point in found["spread"]]
    assert max(speeds) == found["top"][0]["tokens_per_s_per_device"]
    assert len(speeds) <= found["fitting"]
    # No layout that fits is above and left of the front.
    for point in found["spread"]:
        assert any(
            entry["tokens_per_s_per_device"] >= point["tokens_per_s_per_device"]
            and entry["peak_memory_bytes_per_device"] <= point["peak_memory_bytes_per_device"]
            for entry in found["pareto"]
        )


def test_leaders_are_the_fastest_of_their_cut(made: tuple[Page, Any]) -> None:
    found = made[0].objects["data"]
    cuts = [(entry["layout"]["tensor"], entry["layout"]["pipeline"]) for entry in found["leaders"]]
    others = [entry["rank"] for entry in found["leaders"] if entry["rank"] != found["recommended"]["row"]]
    assert len(set(cuts)) >= len(others) > 1
    assert found["leaders"][0]["rank"] == 1 and others == sorted(others)


def test_curves_are_those_of_searches_on_other_nodes(made: tuple[Page, Any]) -> None:
    found = made[0].objects["data"]
    best = {point["devices"]: point["tokens_per_s_per_device"] for point in found["curves"][0]["points"]}
    assert list(best) == [8 * nodes for nodes in usual_counts(4, 2978)]
    batch = str(found["global_batch_size"])
    other = call("search", *LLAMA[:-3], "16", *LLAMA[-2:], "--global-batch-size", batch, "--json")
    assert json.loads(other.stdout)["top"][0]["tokens_per_s_per_device"] == best[128]
    for curve, entry in zip(found["curves"][1:], found["leaders"], strict=False):
        here = {point["devices"]: point["tokens_per_s_per_device"] for point in curve["points"]}
        assert here[32] == entry["tokens_per_s_per_device"]
        assert all(speed <= best[devices] for devices, speed in here.items())


def test_node_counts_stay_on_the_machine() -> None:
    assert usual_counts(4, 16) == [1, 2, 4, 8, 16]
    assert usual_counts(6, 100) == [3, 6, 12, 24, 48]
    assert usual_counts(1, 1) == [1]


def test_counts_of_scale_are_followed(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    assert call("search", *LLAMA, "--scale", "2,4", "--report", str(file)).exit_code == 0
    page = Page(file.read_text())
    assert {"scale", "nodes"} <= set(page.objects["charts"])
    assert [p["devices"] for p in page.objects["data"]["curves"][0]["points"]] == [16, 32]


def test_names_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = "num_layers: 4\nhidden_size: 256\nnum_heads: 4\nvocab_size: 1000\n"
    Path("model.yaml").write_text(f"name: '{MARKUP}'\n{model}")
    Path("machine.yaml").write_text(f"extends: lumi-g\nname: '{MARKUP}'\n")
    done = call("search", "model.yaml", "--machine", "machine.yaml", "--report", "page.html")
    assert done.exit_code == 0, done.stderr
    text = Path("page.html").read_text()
    assert "img" not in Page(text).tags
    assert MARKUP not in re.sub(r'<script type="application/json".*?</script>', "", text)


def test_another_page_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("mine")
    assert call("search", *LLAMA, "--report", str(file)).exit_code == 2
    assert file.read_text() == "mine"
    assert call("search", *LLAMA, "--report", str(file), "--force").exit_code == 0
    assert file.read_text() != "mine"
