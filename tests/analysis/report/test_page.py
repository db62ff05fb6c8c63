"""The page as text: its numbers, its safety, its colours."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from frontrunner.analysis.analyze import Analysis, analyze
from frontrunner.analysis.read import read
from frontrunner.analysis.report import changes, sections, summary
from frontrunner.analysis.report.escape import script_json
from frontrunner.analysis.report.page import page, write
from frontrunner.analysis.report.papers import STYLE, _draw, draw
from frontrunner.analysis.report.sweeps import SHARE_COLUMNS, ranking_columns
from frontrunner.analysis.report.table import shown, value_at
from frontrunner.analysis.sweeps import read_sweeps
from support import logs
from support.reports import MARKUP, study, sweep_file
from support.specs import run_spec
from support.tree import ROOT

COLUMNS = [
    column
    for module in (sections, summary, changes)
    for name, columns in vars(module).items()
    if name.endswith("COLUMNS")
    for column in columns
]


class Cells(HTMLParser):
    """The text of every element, and that of cells with ``data-key``."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.cells: dict[str, str] = {}
        self._key: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [name] if (name := given.get("id")) else []
        self._key = given.get("data-key")
        if self._key:
            self.cells[self._key] = ""

    def handle_endtag(self, tag: str) -> None:
        self._key = None

    def handle_data(self, data: str) -> None:
        if self._key:
            self.cells[self._key] += data


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    swept = read_sweeps([sweep_file(tmp_path_factory.mktemp("sweep"))])
    return analyze(read([study(tmp_path_factory.mktemp("study"))]), "lumi-g", swept)


@pytest.fixture(scope="module")
def text(found: Analysis) -> str:
    return "".join(page(found))


def embedded(text: str, name: str) -> Any:
    (content,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.DOTALL)
    return json.loads(content)


def test_every_number_of_a_table_is_that_of_json(found: Analysis, text: str) -> None:
    answer = json.loads(json.dumps(found.answer))
    cells = Cells(text).cells
    assert len(cells) > 150
    swept = [*SHARE_COLUMNS, *ranking_columns(answer["sweeps"][0])]
    for key, written in cells.items():
        columns = [column for column in [*COLUMNS, *swept] if key.endswith(f".{column.key}")]
        assert written in {shown(value_at(answer, key), column.form) for column in columns}, key


@pytest.mark.parametrize(
    ("title", "value", "written"),
    [
        ("memory", 1.5 * 2**30, "1.50 GiB"),
        ("network", 1280 * 2**10, "1.25 MiB"),
        ("model FLOP/s", 50.33e12, "50.3 TFLOP/s"),
        ("MFU", 0.263, "26.3 %"),
        ("step against plan", -1.263, "-1.26 %"),
        ("planned tokens/s", 0.0683, "+6.83 %"),
        ("tokens/s per device", 1234.5, "1,230"),
        ("devices", 1024, "1,024"),
        ("run", "a", "a"),
        ("flags", ["loss", "memory"], "loss, memory"),
        ("step", None, "–"),
    ],
)
def test_a_number_is_written_as_its_column_says(title: str, value: object, written: str) -> None:
    column = next(column for column in COLUMNS if column.title == title)
    assert shown(value, column.form) == written


def test_the_page_holds_the_object_of_json(found: Analysis, text: str) -> None:
    assert embedded(text, "data") == json.loads(json.dumps(found.answer))


def test_drawn_points_are_numbers_of_json(found: Analysis, text: str) -> None:
    drawn = embedded(text, "charts")
    strong = found.answer["scaling"][0]["points"]
    assert drawn["scaling-1"]["data"][0]["y"] == [point["tokens_per_s"] for point in strong]
    percent = [100 * point["efficiency"] for point in strong]
    assert drawn["efficiency-1"]["data"][0]["y"] == pytest.approx(percent)
    assert drawn["efficiency-1"]["layout"]["yaxis"]["title"]["text"] == "efficiency (%)"


def test_every_section_is_there(text: str) -> None:
    details = {"scaling", "memory", "losses", "roofline", "sweeps", "speed", "runs", "assumptions"}
    ids = Cells(text).ids
    assert details <= set(ids)
    first = ["summary", "predicted", "breakdown", "changes", "warnings"]
    assert [name for name in ids if name in {*first, *details}][:5] == first, "what a reader asks first"


def test_markup_in_names_and_messages_is_text(text: str) -> None:
    parsed = Cells(text)
    assert MARKUP in "".join(parsed.cells.values()), "the name is shown as it is"
    assert "img" not in parsed.tags
    assert MARKUP not in text
    assert parsed.tags.count("script") == 4, "two of data, Plotly and the page's own"


HOSTILE = "\x1b[31mred\x1b[0m \u202eevil </script><img src=x onerror=alert(1)> \udcff"


def test_a_hostile_name_is_harmless(tmp_path: Path) -> None:
    """Markup, terminal sequences, marks that reorder text, and bytes that are no UTF-8, in any place."""
    loud = {"kind": "warning", "about": "loss", "step": 2, "message": HOSTILE}
    for name in ("a", "b"):
        folder = logs.write_run(tmp_path / name, [2.0, 1.0, 1.0, 1.0], run_spec(devices=2))
        with (folder / "records.jsonl").open("a") as file:
            file.write(logs.line(loud))
    found = analyze(read([tmp_path]))
    for run in found.answer["runs"]:
        run["id"] += HOSTILE
    path = tmp_path / "page.html"
    write(found, path)
    text = path.read_text(encoding="utf-8")
    ours = text[: text.index("/**\n* plotly.js")]
    parsed = Cells(text)
    assert parsed.tags.count("script") == 4 and "img" not in parsed.tags
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", ours)
    assert "\ufffd[31mred\ufffd[0m \ufffdevil &lt;/script&gt;" in ours
    names = [entry["name"] for entry in embedded(text, "charts")["losses"]["legend"]]
    assert names[0].startswith("a\ufffd[31mred"), "the script sets it as text"


def test_a_name_that_is_no_utf_8_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "log-\udcff.out"
    path.write_text(logs.megatron_step(1, 2.0))
    write(analyze(read([path])), tmp_path / "page.html")
    assert "<title>log-\ufffd</title>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_memory_of_a_device_is_drawn_for_one_run(tmp_path: Path) -> None:
    spec = run_spec(devices=2)
    logs.write_run(tmp_path / "one", [1.0] * 4, spec, peak_memory_bytes=2**28)
    drawn = embedded("".join(page(analyze(read([tmp_path])))), "charts")["memory"]
    capacity = spec.machine.device.memory_bytes
    (line,) = drawn["layout"]["shapes"]
    assert line["x0"] == line["x1"] == capacity / 2**30
    assert (line["y0"], line["y1"], line["yref"]) == (0, 1, "paper"), "across the whole figure"
    assert drawn["layout"]["xaxis"]["range"][1] > capacity / 2**30, "and inside it"
    assert drawn["layout"]["xaxis"]["title"]["text"] == "memory (GiB)"
    assert drawn["data"][0]["text"] == ["256 MiB"]


def test_every_entry_of_a_legend_has_a_mark(text: str) -> None:
    for name, drawn in embedded(text, "charts").items():
        for entry in drawn["legend"]:
            if "trace" not in entry:
                assert drawn["layout"]["shapes"], name
                continue
            trace = drawn["data"][entry["trace"]]
            lengths = trace["x"] if trace["type"] == "bar" else trace["y"]
            assert any(lengths), f"{name}: {entry['name']}"
        listed = [drawn["colors"][entry["trace"]] for entry in drawn["legend"] if "trace" in entry]
        assert len(set(listed)) == len(listed) and max(listed, default=0) < 8, f"{name}: a colour twice"


def test_a_script_of_data_cannot_be_ended_by_data() -> None:
    text = script_json({"a": "</script><!--&"})
    assert "<" not in text
    assert json.loads(text) == {"a": "</script><!--&"}


def test_names_of_parts_are_there_once(text: str) -> None:
    ids = Cells(text).ids
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_from_anywhere(text: str) -> None:
    ours = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!#|data:,")', ours)
    assert "default-src 'none'" in ours


def luminance(color: str) -> float:
    """WCAG 2.1's relative luminance."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_enough_for_text_and_lines() -> None:
    """WCAG 2.1: 4.5 for text, 3 for what figures are drawn with."""
    folder = ROOT / "analysis" / "report"
    themes = re.findall(r"\{([^}]*--page:[^}]*)\}", (folder / "page.css").read_text())
    script = (folder / "page.js").read_text()
    palettes = [
        re.findall(r"#\w{6}", line) for line in script.splitlines() if re.search(r"(light|dark): \[", line)
    ]
    assert len(themes) == len(palettes) == 2
    for theme, palette in zip(themes, palettes, strict=True):
        color = dict(re.findall(r"--(\w+): (#\w{6})", theme))
        for ground in ("page", "card"):
            assert (
                min(
                    contrast(color[name], color[ground]) for name in ("text", "soft", "link", "warn", "limit")
                )
                >= 4.5
            )
            assert min(contrast(line, color[ground]) for line in palette) >= 3


def test_figures_for_papers_are_the_same_ones(found: Analysis, text: str, tmp_path: Path) -> None:
    paths = draw(found, tmp_path / "figures")
    assert {path.stem for path in paths} == set(embedded(text, "charts"))
    assert {path.suffix for path in paths} == {".png", ".svg"}
    assert all(path.stat().st_size > 3000 for path in paths)
    again = draw(found, tmp_path / "again")
    svg = next(index for index, path in enumerate(paths) if path.suffix == ".svg")
    assert paths[svg].read_bytes() == again[svg].read_bytes(), "the same runs give the same file"


def test_labels_of_files_are_plain_text(found: Analysis) -> None:
    """Also those of logarithmic axes; a dollar in a name begins no formula."""
    for chart in (chart for section in sections.sections(found) for chart in section.charts):
        figure = Figure()
        with rc_context(STYLE):
            axes = figure.subplots()
            _draw(axes, chart)
            figure.draw_without_rendering()
        labels = [*axes.get_xticklabels(which="both"), *axes.get_yticklabels(which="both")]
        assert any(label.get_text() for label in labels)
        assert not [label.get_text() for label in labels if "$" in label.get_text()]


def test_a_single_run_that_says_little_makes_a_page(tmp_path: Path) -> None:
    path = tmp_path / "one.out"
    path.write_text(logs.megatron_step(1, 2.0))
    text = "".join(page(analyze(read([path]))))
    assert "<title>one</title>" in text
