"""What README.md and the pages in docs/ show works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontrunner.configs.load import load_machine, load_run
from frontrunner.configs.load_sweep import load_sweep
from frontrunner.launcher.cli import COMMANDS
from frontrunner.parallelism.layout import Layout
from generator.commands import command
from support.documents import PAGES, blocks, commands, documents
from support.paths import run_keys
from support.tree import FOLDERS, ROOT, modules

PAGE = pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
ONLY_IN_MACHINES = {"num_nodes", "links", "software", "site"}


@PAGE
def test_yaml_is_right(page: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    for text in blocks(page, "yaml"):
        path.write_text(text)
        keys = yaml.safe_load(text).keys()
        if "space" in keys:
            assert load_sweep(str(path)).spec.space
        elif keys & ONLY_IN_MACHINES:
            assert load_machine(str(path)).num_nodes
        else:
            Layout.from_spec(load_run(str(path)).spec)


@PAGE
def test_commands_and_options_exist(page: Path) -> None:
    """As the command line itself reads them; nothing is run."""
    for words in commands(page):
        parsed = parse(words)
        for override in parsed.params.get("override") or ():
            key, equals, _ = override.partition("=")
            shown_wrong = f"{key} = " in page.read_text() and "unknown key" in page.read_text()
            assert equals and (known(key) or shown_wrong), f"{page.name}: {override}"


def parse(words: list[str]) -> Any:
    found = command(words[0])
    rest = words[1:]
    if hasattr(found, "commands"):
        found, rest = found.commands[rest[0]], rest[1:]
    return found.make_context(words[0], list(rest))


def known(key: str) -> bool:
    return any(key == each or each.startswith(f"{key}.") for each in run_keys())


def test_options_that_do_not_exist_are_noticed() -> None:
    with pytest.raises(Exception, match="no-such-option"):
        parse(["plan", "run.yaml", "--no-such-option"])
    assert not known("layout.pipelin")


@PAGE
def test_commands_in_the_text_exist(page: Path) -> None:
    for words in re.findall(r"`frontrunner ([a-z]+[^`]*)`", page.read_text()):
        found = command(words.split()[0])
        if hasattr(found, "commands"):
            found = found.commands[words.split()[1]]
        options = {name for parameter in found.params for name in parameter.opts}
        assert {word for word in words.split() if word.startswith("-")} <= options, words


def test_each_command_is_told() -> None:
    text = "".join(page.read_text() for page in documents())
    assert set(COMMANDS) <= set(re.findall(r"frontrunner (\w+)", text))


def test_readme_is_short_and_its_targets_exist() -> None:
    readme = ROOT / "README.md"
    assert readme.read_text().count("\n") <= 120
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make (\w+)", "".join(blocks(readme, "bash")))) == {"train", "test"} <= {*targets}


@PAGE
def test_links_lead_somewhere(page: Path) -> None:
    """Also from README, and to drawings; the site's build looks at anchors."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            generated = (page.parent / target).resolve().parent == PAGES / "reference"
            assert generated or (page.parent / target).exists(), f"{page.name}: {target}"


def test_messages_of_the_faq_are_real() -> None:
    """Each heading quotes a message as some module has it."""
    source = "".join((ROOT / path).read_text() for path in modules(*FOLDERS))
    source = re.sub(r'"\n\s*f?"', "", source)  # a message may be written on several lines
    quoted = re.findall(r"^## `(.+)`$", (PAGES / "faq.md").read_text(), re.MULTILINE)
    assert len(quoted) >= 10
    assert [text for text in quoted if text not in source] == []


def test_results_are_those_of_the_benchmarks() -> None:
    """Each row of figures on the page is a row of benchmarks/README.md, where they are kept."""
    kept = (ROOT / "benchmarks" / "README.md").read_text().replace("fit left out", "fit skipped")
    rows = [line for line in (PAGES / "results.md").read_text().splitlines() if re.match(r"\|.*\d", line)]
    assert len(rows) > 40
    assert [row for row in rows if row not in kept] == []


def test_the_site_is_built_without_a_network(tmp_path: Path) -> None:
    """And asks its readers for none; a link or anchor that leads nowhere is an error."""
    pytest.importorskip("zensical")
    shutil.copytree(
        ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("site", ".cache", "reference")
    )
    docs, python = tmp_path / "docs", sys.executable
    env = os.environ | dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    build = [str(Path(python).with_name("zensical")), "build", "--strict", "--config-file", "zensical.toml"]
    for words in ([python, "-m", "generator", "pages/reference"], build):
        done = subprocess.run(words, cwd=docs, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    pages = [*(docs / "site").rglob("*.html")]
    assert len(pages) > 35
    for page in pages:
        loaded = re.findall(
            r'<(?:script|img|iframe)[^>]+src="?(?:https?:)?//|<link[^>]+href="?https?://', page.read_text()
        )
        assert not loaded, page


#: What `make docs` makes.
GENERATED = ("docs/site/", "docs/pages/reference/")


def test_files_that_documents_name_are_there() -> None:
    documents = [*PAGES.rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]
    folders = "|".join((*FOLDERS, "tests", "benchmarks", "docs"))
    named = {
        name
        for page in documents
        if "reference" not in page.parts
        for name in re.findall(rf"`((?:{folders})/[\w/.]*)`", page.read_text())
    }
    assert len(named) > 20
    named = {name for name in named if not name.startswith(GENERATED)}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
