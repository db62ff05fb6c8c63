"""Errors of commands: their messages and exit codes."""

from __future__ import annotations

import importlib
import json
import math
import traceback
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.secrets import masked
from frontrunner.launcher.display.terminal import say
from frontrunner.run_folder.endings import (
    FAILED,
    INTERRUPTED,
    TO_BE_CONTINUED,
    WRONG_REQUEST,
    TrainingFailed,
)
from frontrunner.slurm.errors import SlurmFailed


class RunFailed(Exception):
    """The work failed, and the message is complete: exit code 1, no traceback."""


class RunStopped(Exception):
    """The run stopped on request after a checkpoint and can be continued: exit code 75."""


def report(error: BaseException, as_json: bool) -> int:
    """Report ``error`` on stderr, and on stdout as one object with ``--json``; returns the exit code.

    A traceback is printed only for unexpected errors, which are bugs.
    """
    lines: list[str] = []
    match error:
        case SpecError():
            lines = [str(violation) for violation in error.violations]  # a line each, whatever they quote
            code, message = WRONG_REQUEST, "\n".join(lines)
        case KeyboardInterrupt():
            code, message = INTERRUPTED, "interrupted"
        case RunStopped():
            code, message = TO_BE_CONTINUED, str(error)
        case RunFailed() | TrainingFailed() | SlurmFailed():
            code, message = FAILED, str(error)
        case OSError(strerror=str(reason)):
            code, message = FAILED, f"{error.filename}: {reason}" if error.filename else reason
        case _:
            code, message = FAILED, "".join(traceback.format_exception(error))
    message = masked(message)
    say(*(map(masked, lines) if lines else message.splitlines()))
    if as_json:
        answer: dict[str, object] = {"error": message}
        if isinstance(error, SpecError):
            answer = {"valid": False, "violations": [_fields(violation) for violation in error.violations]}
        print(masked(json.dumps(answer, default=str)), flush=True)
    return code


def in_words(error: Any) -> str:
    """What is wrong with an option's value. Newer versions of typer give pydantic's words, not the value."""
    cause = error.__cause__
    found: dict[str, Any] = dict(cause.errors()[0]) if isinstance(cause, ValidationError) else {}
    if not str(found.get("msg", "")).startswith("Input should"):
        return str(error.message)
    rule = found["msg"].removeprefix("Input should ").partition(",")[0]
    fix = {"int_parsing": "; write digits only", "float_parsing": "; write it like 2.5 or 300e9"}
    return f"{json.dumps(found['input'], ensure_ascii=False)} must {rule}{fix.get(found['type'], '')}"


def _fields(violation: Violation) -> dict[str, object]:
    value = violation.value
    unspeakable = isinstance(value, float) and not math.isfinite(value)  # JSON has no NaN
    return violation.fields() | {"value": str(value) if unspeakable else value}


def try_import(module: str, extra: str) -> ModuleType:
    """Import an optional package; if it is missing, RunFailed names the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Only the package itself: a broken dependency is a different problem.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise RunFailed(f"{error.name} is not installed: pip install 'frontrunner[{extra}]'") from None
