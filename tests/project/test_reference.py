"""The generated pages are complete, and every key of a file has a description."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from frontrunner.configs.schema import MachineSpec, RunSpec
from frontrunner.configs.sweep import SweepSpec
from frontrunner.launcher.cli import COMMANDS
from frontrunner.run_folder.endings import FAILED, INTERRUPTED, TO_BE_CONTINUED, WRONG_REQUEST
from generator.__main__ import PAGES, write
from generator.commands import commands, json_keys
from generator.exit_codes import CODES
from generator.keys import NAMES, Key, keys
from support.paths import schema_keys

FILES: dict[str, type[BaseModel]] = {
    "run-file.md": RunSpec,
    "machine-file.md": MachineSpec,
    "sweep-file.md": SweepSpec,
}


def flat(found: list[Key]) -> list[Key]:
    return [each for key in found for each in (key, *flat(list(key.below)))]


@pytest.mark.parametrize("model", FILES.values())
def test_every_key_is_described(model: type[BaseModel]) -> None:
    found = flat([*keys(model)])
    assert len(found) >= 20
    assert [key.path for key in found if len(key.description) < 5] == []


@pytest.mark.parametrize("name", FILES)
def test_every_key_is_on_its_page(name: str) -> None:
    page = PAGES[name]()
    schema = FILES[name].model_json_schema()
    own = {
        path
        for path in schema_keys(schema, schema["$defs"])
        if name != "run-file.md" or "machine." not in path
    }
    shown = {re.sub(rf"\.({'|'.join(set(NAMES.values()))})\b", ".*", key) for key in terms(page)}
    assert own == shown


def terms(page: str) -> list[str]:
    """The terms of the definition lists of a page."""
    return re.findall(r'^(?:<a id="[^"]+"></a>)?`([^`]+)` <span', page, re.MULTILINE)


def test_every_command_and_option_is_on_its_page() -> None:
    page = PAGES["commands.md"]()
    parts = dict(re.findall(r"^## (.+)\n([\s\S]*?)(?=^## |\Z)", page, re.MULTILINE))
    assert {name.split()[0] for name in parts} == set(COMMANDS)
    for name, found in commands():
        options = {option for each in found.params for option in each.opts if option.startswith("-")}
        assert options - {"--help"} <= set(re.findall(r"(?<![\w-])--?[\w-]+", parts[name])), name


def test_commands_with_json_say_what_its_keys_are() -> None:
    with_json = {name for name, found in commands() if any("--json" in each.opts for each in found.params)}
    assert with_json == {words.partition(" --")[0] for words in json_keys()}


def test_exit_codes() -> None:
    assert CODES.keys() == {0, FAILED, WRONG_REQUEST, TO_BE_CONTINUED, INTERRUPTED}


def test_no_words_of_python_are_shown(tmp_path: Path) -> None:
    write(tmp_path)
    for page in tmp_path.iterdir():
        assert not re.findall(r"PydanticUndefined|<class|typing\.|\bNone\b", page.read_text()), page.name
