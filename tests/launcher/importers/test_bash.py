"""What a script would start, worked out without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.launcher.importers import bash
from frontrunner.launcher.importers.bash_expansion import readable


def started(text: str, **variables: str) -> list[list[str]]:
    """The words of each command, unset variables as ``$NAME``."""
    script = bash.read([("run.sh", text)], variables)
    return [[readable(word) for word in command.words] for command in script.commands]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('A=3; B="x $A"; run "$B" $B', ["x 3", "x", "3"]),
        ("A=(--a 1\n --b 'x y' # why\n); A+=(--c); run ${A[@]}", ["--a", "1", "--b", "x y", "--c"]),
        ('A=(--a "x y"); run "${A[@]}"', ["--a", "x y"]),
        ("run ${A:-1} ${B:=2} $B ${B:+yes} ${C:+no}", ["1", "2", "2", "yes"]),
        ("A=1_000; A=${A//_}; run $((A * 2 / 3 - 1))", ["665"]),
        ("P=/a/b.tar.gz; run ${P##*/} ${P%.*} ${P%%.*} ${P/b/c} ${#P}", None),
        ("export A=1 B=2; run $A$B-$A", ["12-1"]),
        ('run "a\\\n b" \\\n  c', ["a b", "c"]),
        ("A='$B'; run $A \"\\$A\"", ["$B", "$A"]),
        ("f() { local n=$1; run $n \"$2\"; }; f 1 'x y'", ["1", "x y"]),
        ('A="--a 1 \\\n  $N \\\n  --b"; N=2; run $A', ["--a", "1", "$N", "--b"]),
        ('A=1; run --x=$A "--y=$A"', ["--x=1", "--y=1"]),
        ("A=$(date); run $A `hostname`", ["$(date)", "`hostname`"]),
        ("unset A; A+=x; run $A", ["x"]),
        ("A=one\nrun ${A^^} ${A,,}", ["ONE", "one"]),
    ],
)
def test_expansions(text: str, words: list[str] | None) -> None:
    if words is None:
        words = ["b.tar.gz", "/a/b.tar", "/a/b", "/a/c.tar.gz", "11"]
    assert started(text) == [["run", *words]]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("[ $M = 7B ]", True),
        ('[[ "$M" == 7* ]]', True),
        ("[[ $M == '7*' ]]", False),
        ("[ $N -gt 3 ] && [ $N -le 4 ]", True),
        ("[[ $N -eq 4 && -z $U ]]", True),
        ("[ -n '$U' ]", True),
        ('[ -n "$U" ]', False),
        ("(( N > 4 ))", False),
        ("[ ! $M = 7B ]", False),
        ("[[ -v N ]]", True),
        ("[[ -v U ]]", False),
        ("[ -z ${U+x} ]", True),
        ("[[ $M =~ ^[0-9]+B$ ]]", None),
        ("[ -f data.bin ]", None),
        ('[ -z "$(which torchrun)" ]', None),
        ("[ -z $SLURM_JOB_ID ]", False),
    ],
)
def test_conditions(condition: str, holds: bool | None) -> None:
    """A variable that the script does not set is empty; what only a run can tell leaves both ways out."""
    text = f"#SBATCH -N 4\nM=7B; N=4\nif {condition}; then run yes; else run no; fi\n"
    script = bash.read([("run.sh", text)], {})
    words = [command.words[1] for command in script.commands]
    assert words == {True: ["yes"], False: ["no"], None: []}[holds]
    assert bool(script.undecided) is (holds is None)


def test_branches_and_loops() -> None:
    text = """
    case $SIZE in 1B) L=16;; 7B|8B) L=32;; *) L=0;; esac
    if [ $L = 16 ]; then H=2048; elif [ $L = 32 ]; then H=4096; else H=1; fi
    for T in 1 2; do run $L $H $T; done
    while read line; do run never; done < list
    """
    assert started(text, SIZE="8B") == [["run", "32", "4096", "1"], ["run", "32", "4096", "2"]]
    assert started(text)[0] == ["run", "0", "1", "1"]


def test_command_lines_inside_words() -> None:
    text = """
    ARGS="--num-layers 2 --save $OUT"
    LAUNCH="torchrun --nnodes $SLURM_NNODES"
    srun bash -c "$LAUNCH train.py $ARGS"
    srun --label sh -c '$LAUNCH train.py $ARGS'
    eval $LAUNCH train.py
    """
    words = ["torchrun", "--nnodes", "8", "train.py", "--num-layers", "2", "--save", "$OUT"]
    found = started("#SBATCH --nodes=8\n" + text)
    assert [command for command in found if command[0] == "torchrun"] == [words, words, words[:4]]


def test_files_and_exits() -> None:
    script = bash.read(
        [
            (
                "run.sh",
                "N=4\ncat <<END > ds.json\n{\"n\": $N}\nEND\necho '{}' > b.json\nrun\nexit 3\nrun never\n",
            )
        ],
        {},
    )
    assert script.files == {"ds.json": '{"n": 4}\n', "b.json": "{}\n"}
    assert [command.words for command in script.commands] == [["cat"], ["run"]]
    assert script.ended == ("run.sh:7", "exit 3")


def test_sourced_scripts_and_submitted_ones(tmp_path: Path) -> None:
    (tmp_path / "env.sh").write_text("A=5\n")
    (tmp_path / "job.sh").write_text("#SBATCH -n 16\nrun $A $SLURM_NTASKS $SLURM_NNODES\n")
    text = f"source {tmp_path}/env.sh\nsbatch --nodes 2 job.sh\nsource nowhere.sh\n"
    script = bash.read([(str(tmp_path / "run.sh"), text)], {})
    assert [command.words for command in script.commands] == [["run", "5", "16", "2"]]
    assert script.undecided == [(f"{tmp_path}/run.sh:3", "source nowhere.sh")]
    assert script.directives["ntasks"] == ("16", f"{tmp_path}/job.sh:1")


@pytest.mark.parametrize(
    "text",
    [
        "A=xxxxxxxxxx\n" + "A=$A$A$A$A\n" * 30,
        "run " + "$(" * 3000 + ")" * 3000,
        "f() { f; }; f\n" * 3,
        "for i in " + "1 " * 30_000 + "; do run; done",
        "A=" + "(" * 2000,
        "if " * 500,
        "\x00\x01\x02",
        "${" * 1000,
    ],
)
def test_bombs_and_nonsense_end(text: str) -> None:
    try:
        bash.read([("run.sh", text)], {})
    except SpecError as error:
        assert error.violations[0].file == "run.sh"


def test_a_part_that_is_no_bash_is_named() -> None:
    script = bash.read([("run.sh", "A=1\nexport B=<fill in here>\nrun $A\n")], {})
    assert script.undecided[0][0] == "run.sh:2"
