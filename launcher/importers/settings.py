"""A trainer's settings as its files give them, and what becomes of each in a run file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from frontrunner.configs.errors import Violation, show_value
from frontrunner.launcher.importers.bash_expansion import MARKED, readable

T = TypeVar("T")
DEFAULT = "the trainer's default"
_WHOLE = {0: "a whole number, at least 0", 1: "a whole number, at least 1"}
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


@dataclass(frozen=True)
class Setting:
    """One setting: its key as written, its value, and where it stands (file, and line if known)."""

    key: str
    value: Any
    file: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.written} ({place})"

    @property
    def written(self) -> str:
        """Key and value as the trainer's file writes them."""
        if self.key.startswith("-"):
            return self.key if self.value is True else f"{self.key} {self.shown}"
        return f"{self.key}: {self.shown}"

    @property
    def shown(self) -> str:
        """The value in one line; variables that are not set as ``$NAME``."""
        if isinstance(self.value, str):
            return readable(self.value)
        if isinstance(self.value, list) and all(isinstance(part, str) for part in self.value):
            return readable(" ".join(self.value))
        return show_value(self.value)


def plain(key: str) -> str:
    """A key without its dashes: ``--num-layers`` and ``num-layers`` are ``num_layers``."""
    return key.lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Ignored:
    """A setting without a counterpart, and what follows from its absence."""

    key: str
    value: str
    consequence: str


@dataclass
class Given:
    """What files hold: settings by plain key, options of launcher and job, notes on what was left out.

    ``name``: of the job, or of a file. ``text``: of all. ``model``: a Hugging Face config.json among the
    files. ``machine``: named in a log. ``printed``: from a log, which has the trainer's defaults too.
    """

    trainer: str
    name: str
    text: str = ""
    settings: dict[str, Setting] = field(default_factory=dict)
    job: dict[str, Setting] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    model: str | None = None
    machine: str | None = None
    printed: bool = False


@dataclass
class Conversion:
    """Settings of one run by :func:`plain` key, and the run file that grows from them.

    ``origins``: the setting, or the words, from which each of our dotted keys was taken. ``fixed``: dotted
    keys that the user decides, with their values. ``failed``: dotted keys whose setting could not be used.
    ``another_model``: the user names the model, so what the files say of theirs does not matter.
    """

    trainer: str
    settings: Mapping[str, Setting]
    run: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Setting | str] = field(default_factory=dict)
    ignored: list[Ignored] = field(default_factory=list)
    problems: list[Violation] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    another_model: bool = False
    failed: set[str] = field(default_factory=set)

    @contextmanager
    def of_model(self) -> Iterator[None]:
        """What is refused inside is of the files' model: no problem if the user names another."""
        before = len(self.problems)
        yield
        if self.another_model:
            del self.problems[before:]

    def take(self, *keys: str) -> Setting | None:
        """The first of these that is given; it and the others count as read."""
        self.used |= set(keys)
        return next((self.settings[key] for key in keys if key in self.settings), None)

    def put(self, path: str, value: object, origin: Setting | str) -> None:
        """Set a dotted key of the run file, unless the user decides it."""
        value, origin = (self.fixed[path], "-o") if path in self.fixed else (value, origin)
        *sections, key = path.split(".")
        into = self.run
        for section in sections:
            into = into.setdefault(section, {})
        into[key] = value
        self.origins[path] = origin

    def refuse(self, setting: Setting, constraint: str, fix: str | None = None) -> None:
        """A setting with which the run would be another one; ``fix``: by default, to do without it."""
        fix = fix or f"leave it out: --set {plain(setting.key)}=null"
        self.problems.append(
            Violation(setting.key, _known(setting), constraint, fix, setting.file, setting.line)
        )

    def ignore(self, setting: Setting, consequence: str) -> None:
        self.ignored.append(Ignored(setting.key, "" if setting.value is True else setting.shown, consequence))

    def value(self, setting: Setting | None, read: Callable[[Any], T | None], wanted: str) -> T | None:
        """The value of a setting; a problem if it is not what it must be, or not known."""
        if setting is None:
            return None
        if isinstance(setting.value, str) and MARKED.search(setting.value):
            name = readable(setting.value)
            simple = name.startswith("$") and name[1:].isidentifier()
            fix = (
                f"give it: --set {name[1:]}=VALUE"
                if simple
                else f"write a value for {setting.key} in the file"
            )
            self.refuse(setting, "is known only when the script runs", fix)
            return None
        found = read(setting.value)
        if found is None:
            self.refuse(setting, f"must be {wanted}", "correct it in the file")
        return found

    def whole(self, path: str, *keys: str, least: int = 1, default: int | None = None) -> int | None:
        """Copy a whole number to our key; the trainer's ``default`` if it is not given."""
        return self._copied(
            path, self.take(*keys), lambda found: integer(found, least), _WHOLE[least], default
        )

    def real(self, path: str, *keys: str, default: float | None = None) -> float | None:
        """Likewise, a number."""
        return self._copied(path, self.take(*keys), number, "a number", default)

    def _copied(
        self,
        path: str,
        setting: Setting | None,
        read: Callable[[Any], T | None],
        wanted: str,
        default: T | None,
    ) -> T | None:
        given = setting is not None and setting.value is not None
        value = self.value(setting, read, wanted) if given else default
        if value is not None:
            self.put(path, value, setting if given and setting else DEFAULT)
        elif given:
            self.failed.add(path)
        return value

    def choose(self, path: str, known: Mapping[str, object], *keys: str, default: object = None) -> object:
        """Copy what a word means; ``default`` if it is not given. Another word makes another run."""
        setting = self.take(*keys)
        origin: Setting | str = DEFAULT
        value = default
        if setting is not None and setting.value is not None:
            value, origin = known.get(_choice(setting.value)), setting
            if value is None:
                fix = f"choose a near one: --set {plain(setting.key)}={next(iter(known))}"
                self.refuse(setting, "has no counterpart in a run file", fix)
        if value is not None:
            self.put(path, value, origin)
        return value

    def switch(self, key: str, default: bool = False) -> bool:
        """Whether a flag or a truth value is given and set."""
        setting = self.take(key)
        if setting is None or setting.value is None:
            return default
        return bool(self.value(setting, switch, "true or false"))

    def got(self, path: str) -> Any:
        """The value of a dotted key of the run file so far; None if there is none."""
        value: Any = self.run
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def rest(self) -> Iterator[Setting]:
        """Settings that nothing has read yet."""
        return (setting for key, setting in self.settings.items() if key not in self.used)


def _known(setting: Setting) -> object:
    return setting.shown if isinstance(setting.value, str | list) else setting.value


def _choice(value: object) -> str:
    """A word as tables have it: ``PositionEmbeddingType.rope`` is printed for rope, and 1.0 for 1."""
    if isinstance(value, float) and value == int(value):
        value = int(value)
    return re.sub(r"^[A-Z]\w*\.", "", str(value)).lower()


def integer(value: object, least: int = 1) -> int | None:
    found = number(value)
    return int(found) if found is not None and found == int(found) and least <= found < 2**53 else None


def number(value: object) -> float | None:
    """A finite number, or the text of one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if abs(found) < 1e300 else None


def switch(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    return True if text in _TRUE else False if text in _FALSE else None
