"""The shells themselves are asked what they would complete."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from frontrunner.configs import presets
from frontrunner.launcher.cli import COMMANDS, build
from frontrunner.launcher.completion import ARGUMENTS, SHELLS, words
from support.terminal import in_pipe

EVIL = "$(touch HACKED)"
BASH = """\
source {script}
compopt() {{ :; }}
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
_frontrunner
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = "source {script}; complete -C {line}"
#: zsh completes only where somebody types: compadd, which it would call, prints instead.
ZSH = """\
compdef() {{ :; }}
source {script}
compadd() {{
  while [[ $1 != -- ]]; do shift; done
  for word in "${{@[2,-1]}}"; do [[ $word == "$PREFIX"* ]] && print -r -- $word; done
}}
compset() {{ PREFIX=${{PREFIX#*=}} }}
_files() {{ :; }}
words=("$@") CURRENT=$# PREFIX=${{@[-1]}}
_frontrunner
true
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, one with an evil name, a run file, a text, and the three scripts."""
    folder = tmp_path_factory.mktemp("completion")
    for name in ("two", EVIL):
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "run.yaml").touch()
    (folder / "mine.yaml").touch()
    (folder / "text.txt").touch()
    for shell in SHELLS:
        (folder / f"script.{shell}").write_text(in_pipe("completion", shell).stdout)
    return folder


def completed(place: Path, shell: str, line: list[str]) -> set[str]:
    """What the shell offers after these words."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    script = str(place / f"script.{shell}")
    if shell == "fish":
        text = "'" + " ".join(line).replace("'", "\\'") + "'"
        command = [program, "--no-config", "-c", FISH.format(script=script, line=text)]
    else:
        code = {"bash": BASH, "zsh": ZSH}[shell].format(script=script)
        command = [program, "--norc" if shell == "bash" else "--no-rcs", "-c", code, shell, *line]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60)
    assert not (place / "HACKED").exists()
    assert done.stderr == ""
    return {found.partition("\t")[0] for found in done.stdout.splitlines() if found}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["pl"], {"plan"}),
        (["sweep", ""], {"run", "status", "report"}),
        (["plan", "gpt-2"], {"gpt-22b-frontier"}),
        (["plan", "--ma"], {"--machine"}),
        (["plan", "--machine", "fron"], {"frontier"}),
        (["search", "gpt-22"], {"gpt-22b"}),
        (["advise", "gpt-22"], {"gpt-22b"}),
        (["advise", "gpt-22b", "--node"], {"--node-hours"}),
        (["plan", "x", "-o", "layout.te"], {"layout.tensor="}),
        (["train", "x", "--override", "watch.h"], {"watch.hang_after_s="}),
        (["export", "x", "--to", "m"], {"megatron", "megatron-deepspeed"}),
        (["sweep", "run", "x", "--on", ""], {"slurm", "local"}),
        (["presets", "llama-2-7b-"], {"llama-2-7b-lumi"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
    ],
)
def test_words(place: Path, shell: str, line: list[str], expected: set[str]) -> None:
    assert completed(place, shell, ["frontrunner", *line]) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_runs_are_names_only(place: Path, shell: str) -> None:
    found = completed(place, shell, ["frontrunner", "status", ""])
    assert {"runs/two", f"runs/{EVIL}"} <= found
    assert "mine.yaml" not in found and "text.txt" not in found


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_files(place: Path, shell: str) -> None:
    found = completed(place, shell, ["frontrunner", "check", ""])
    assert {"mine.yaml", "quickstart"} <= found
    assert "text.txt" not in found
    assert completed(place, shell, ["frontrunner", "check", "mi"]) == {"mine.yaml"}


def test_words_of_bash_are_split_at_equals_signs(place: Path) -> None:
    assert completed(place, "bash", ["frontrunner", "plan", "--machine", "=", "fron"]) == {"frontier"}
    assert completed(place, "bash", ["frontrunner", "plan", "x", "-o", "nodes", "="]) == set()
    assert completed(place, "bash", ["frontrunner", "plan", "x", "-o", "layout.tensor", "=", "f"]) == set()


def test_every_argument_is_known() -> None:
    for name in COMMANDS:
        found = typer.main.get_command(build([name])).commands[name]  # type: ignore[attr-defined]
        for each in getattr(found, "commands", {"": found}).values():
            for parameter in each.params:
                if parameter.param_type_name == "argument":
                    assert (parameter.metavar or "") in {*ARGUMENTS, "SHELL", ""}, name


def test_fixed_words() -> None:
    assert words()["machine"] == tuple(presets.names("machine"))
    assert {"nodes=", "layout.tensor=", "machine.site.chain="} <= set(words()["key"])


def test_an_unknown_shell() -> None:
    done = in_pipe("completion", "tcsh")
    assert done.returncode == 2
    assert done.stderr == 'SHELL = "tcsh": is not a supported shell; use one of: bash, zsh, fish\n'
