"""What bash and sbatch read is what was meant; bash itself is asked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontrunner.slurm.quoting import directive, shell, shell_with_variables

EVIL = [
    "",
    "plain",
    "it's",
    'a "b"',
    "$(touch HACKED)",
    "`touch HACKED`",
    "$HOME ${HOME}",
    "a\nb\n#SBATCH --x",
    "tab\tand \x1b and \x7f",
    "back\\slash\\",
    "'\n\\'",
    "-n",
    "é ü 字",
    "!history",
    "* ? [a-z] ~ {a,b}",
]


def bash(code: str, folder: Path, **env: str) -> str:
    """What the words print, each in angle brackets."""
    script = f'printf "<%s>" {code}'
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=env, capture_output=True, check=True)
    assert not (folder / "HACKED").exists()
    return done.stdout.decode()


@pytest.mark.parametrize("value", EVIL)
def test_bash_reads_one_word_that_is_the_value(value: str, tmp_path: Path) -> None:
    assert bash(shell(value), tmp_path) == f"<{value}>"
    assert "\n" not in shell(value)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_any_texts_are_read_as_they_are(values: list[str]) -> None:
    assert bash(" ".join(map(shell, values)), Path("/")) == "".join(f"<{value}>" for value in values)


@pytest.mark.parametrize("value", [v for v in EVIL if "${" not in v])
def test_text_beside_variables_is_text(value: str, tmp_path: Path) -> None:
    code = shell_with_variables(f"{value}${{A}}{value}${{B}}")
    assert bash(code, tmp_path, A="x  $(touch HACKED)") == f"<{value}x  $(touch HACKED){value}>"


def test_nothing_but_names_in_braces_is_expanded(tmp_path: Path) -> None:
    value = "$A ${A:-$(touch HACKED)} $((1+1)) ${1} ${A[0]}"
    assert bash(shell_with_variables(value), tmp_path, A="a") == f"<{value}>"


def test_no_nul() -> None:
    with pytest.raises(ValueError, match="NUL"):
        shell("a\0b")


def test_directives() -> None:
    assert directive("exclusive") == directive("exclusive", "") == "#SBATCH --exclusive"
    assert directive("time", "1-02:00:00") == "#SBATCH --time=1-02:00:00"
    assert directive("job-name", 'a "b" \\ c') == '#SBATCH --job-name="a \\"b\\" \\\\ c"'
    with pytest.raises(ValueError, match="control"):
        directive("job-name", "a\nb")
