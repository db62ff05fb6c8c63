"""Quoting for bash, and for sbatch's parser of directives."""

from __future__ import annotations

import re
import shlex

_PLAIN = re.compile(r"[A-Za-z0-9_.,:/@%+=\[\]-]+")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def shell(value: str) -> str:
    """One word of bash, on one line: control characters become escapes inside ``$'...'``.

    A literal newline in the script could make the next line a directive. Raises ValueError for a NUL, which
    arguments cannot contain.
    """
    if "\0" in value:
        raise ValueError("a NUL cannot be passed to a program")
    if not _CONTROL.search(value):
        return shlex.quote(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped) + "'"


def shell_with_variables(value: str) -> str:
    """Like :func:`shell`, but ``${NAME}`` expands to the node's variable, or to nothing if unset.

    Nothing else is expanded: no commands, no arithmetic, no patterns.
    """
    parts = _REFERENCE.split(value)  # text, name, text, name, ..., text
    words = [
        f'"${{{part}:-}}"' if index % 2 else shell(part)
        for index, part in enumerate(parts)
        if index % 2 or part
    ]
    return "".join(words) or "''"


def directive(option: str, value: str | None = None) -> str:
    """One ``#SBATCH`` line; ValueError for control characters, which a directive cannot contain.

    sbatch joins quoted and unquoted pieces like a shell, but a backslash is an escape in both.
    """
    if value is None or value == "":
        return f"#SBATCH --{option}"
    if _CONTROL.search(value):
        raise ValueError(f"--{option} cannot contain control characters: {value!r}")
    if not _PLAIN.fullmatch(value):
        value = '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return f"#SBATCH --{option}={value}"
