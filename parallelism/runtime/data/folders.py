"""The files of the inputs: what is taken from a folder, and what is passed over, by kind."""

from __future__ import annotations

import os
import sysconfig
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation

PYTHON_STDLIB = "python-stdlib"
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")  # .json: Megatron's tools use it for JSON lines
SUFFIXES = TEXT_SUFFIXES + JSON_SUFFIXES
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zstd")
_NOT_STDLIB = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
#: Files about a data set. They are documents only where there is nothing else.
_ABOUT = {"readme", "license", "licence", "changelog", "citation", "contributing", "notice"}
_SETTINGS = {
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"),
    *("state.json", "package.json"),
}
_TABLES = {".parquet", ".arrow", ".csv", ".tsv", ".feather", ".orc", ".avro"}
_ARCHIVES = {".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".7z", ".rar"}
_HIDDEN = "hidden"


@dataclass(frozen=True)
class Found:
    """Files to read, in order, and what a user should know of those that are not read."""

    files: list[Path]
    notes: list[str] = field(default_factory=list)


def find_files(inputs: Sequence[str], suffixes: Sequence[str] | None = None) -> Found:
    """The files of the inputs, in the given order; files of a folder are sorted by path.

    A file is read whatever its name. A folder gives its files at any depth that end in one of ``suffixes``
    (default: ``SUFFIXES``), compressed or not, except hidden ones, settings and, beside JSON records, a
    README. The others are counted in the notes. ``python-stdlib`` (unless that path exists) is the source of
    the running Python's standard library without its tests. SpecError for inputs that give nothing.
    """
    files: list[Path] = []
    notes: list[str] = []
    violations: list[Violation] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            content = _Folder(path, suffixes)
            problem = content.problem()
            files += content.taken
            notes += content.notes()
        elif path.is_file():
            files.append(path)
            problem = None
        elif name == PYTHON_STDLIB:
            library = Path(sysconfig.get_path("stdlib"))
            files += _Folder(library, [".py"], without=_NOT_STDLIB).taken
            problem = None
        else:
            what = "is neither a file nor a folder" if path.exists() else "does not exist"
            problem = Violation("--input", name, f"{name} {what}", "give text files, JSON lines or folders")
        violations += [problem] if problem else []
    if violations:
        raise SpecError(violations)
    return Found(files, [*notes, *_twice(files)])


def plain_name(path: Path) -> Path:
    """The path without the ending of a compressed form."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED_SUFFIXES else path


class _Folder:
    """A folder: ``taken`` has its files to read, and the passed over are counted by kind.

    Folders inside it whose name is in ``without`` are not looked into.
    """

    def __init__(
        self, folder: Path, suffixes: Sequence[str] | None, without: Collection[str] = frozenset()
    ) -> None:
        self.folder, self._suffixes, self._without = folder, suffixes or SUFFIXES, without
        self.taken: list[Path] = []
        self._passed: Counter[str] = Counter()
        self._example: dict[str, str] = {}
        endings = {suffix.lower() for suffix in self._suffixes}
        packed = {suffix + ending for suffix in endings for ending in ("", *COMPRESSED_SUFFIXES)}
        for path, kind in self._walk():
            if kind is None and not path.name.lower().endswith(tuple(packed)):
                kind = _ending(path)
            if kind is None and suffixes is None and _is_setting(path):
                kind = "settings or description"
            if kind is None:
                self.taken.append(path)
            else:
                self._pass_over(path, kind)
        self.taken.sort(key=lambda path: path.relative_to(folder).as_posix())
        self._only_about = False
        if suffixes is None:
            self._judge_about()

    def _walk(self) -> Iterator[tuple[Path, str | None]]:
        """Every entry, with its kind if that already keeps it from being read."""

        def fail(error: OSError) -> None:
            constraint = f"{error.filename} cannot be read ({error.strerror})"
            fix = "make it readable, or name the files to read"
            raise SpecError([Violation("--input", str(self.folder), constraint, fix)]) from error

        for place, folders, names in os.walk(self.folder, onerror=fail):
            for name in [name for name in folders if name.startswith(".")]:
                yield Path(place, name), _HIDDEN
            folders[:] = [name for name in folders if not name.startswith(".") and name not in self._without]
            for name in folders:
                if Path(place, name).is_symlink():
                    yield Path(place, name), "links to folders"
            for name in names:
                path = Path(place, name)
                kind = None if path.is_file() else "links to nothing" if path.is_symlink() else "no files"
                yield path, _HIDDEN if name.startswith(".") else kind

    def _judge_about(self) -> None:
        about = [path for path in self.taken if path.stem.lower() in _ABOUT]
        others = len(self.taken) - len(about)
        self._only_about = not others and bool(self._passed.keys() - {_HIDDEN})
        if any(plain_name(path).suffix.lower() in JSON_SUFFIXES for path in self.taken):
            self.taken = [path for path in self.taken if path not in about]
            for path in about:
                self._pass_over(path, "README or licence")

    def _pass_over(self, path: Path, kind: str) -> None:
        self._passed[kind] += 1
        shown = path.relative_to(self.folder).as_posix()
        self._example[kind] = min(shown, self._example.get(kind, shown))

    def problem(self) -> Violation | None:
        """Why the folder cannot be an input; None if it can."""
        name, held = str(self.folder), self._held()
        if self.taken and not self._only_about:
            return None
        if self.taken:
            files = ", ".join(path.name for path in self.taken)
            constraint = f"{name} holds no data that can be read, only {files}; passed over: {held}"
        else:
            constraint = f"{name} holds no file that ends in {', '.join(self._suffixes)}"
            constraint += f"; passed over: {held}" if held else " (it is empty)"
        kinds = self._passed.keys()
        fix = "give other files or add --suffix .ext"
        if kinds & _TABLES:
            fix = "write their text as JSON lines first, or add --suffix .ext"
        elif kinds & _ARCHIVES:
            fix = "unpack them first, or add --suffix .ext"
        return Violation("--input", name, constraint, fix)

    def notes(self) -> Iterator[str]:
        if not self._passed or not self.taken:
            return
        passed = sum(count for kind, count in self._passed.items() if kind != _HIDDEN)
        more = "more is passed over than read: " if passed > len(self.taken) else ""
        files = "1 file" if len(self.taken) == 1 else f"{len(self.taken):,} files"
        yield f"{self.folder}: {more}{files} read, passed over: {self._held()}"

    def _held(self) -> str:
        """For example ``3 .parquet (a.parquet ...), 1 hidden (.cache)``."""
        return ", ".join(
            f"{count:,} {kind} ({self._example[kind]}{' ...' if count > 1 else ''})"
            for kind, count in sorted(self._passed.items(), key=lambda item: (-item[1], item[0]))
        )


def _ending(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if not suffixes:
        return "without an ending"
    return "".join(suffixes[-2:]) if suffixes[-1] in COMPRESSED_SUFFIXES else suffixes[-1]


def _is_setting(path: Path) -> bool:
    """Whether a .json file is no data: of a model, a tokenizer or a corpus, or one object over many lines."""
    if path.suffix.lower() != ".json":
        return False
    if path.name.lower() in _SETTINGS or path.with_suffix(".idx").is_file():
        return True
    try:
        with path.open("rb") as file:
            return file.readline(16).strip() == b"{"
    except OSError:
        return False  # said when it is read


def _twice(files: Sequence[Path]) -> Iterator[str]:
    counts = Counter(path.parent.resolve() / plain_name(path).name for path in files)
    first = next((name for name, count in counts.items() if count > 1), None)
    if first is not None:
        many = sum(count > 1 for count in counts.values())
        what = "1 file is" if many == 1 else f"{many:,} files are"
        yield f"{what} read more than once: named twice, or in two forms (the first: {first.name})"
