"""``frontrunner``: one entry point, one module per command.

Only the module of the requested command is imported, so that commands start fast and do not need each
other's dependencies. Errors of all commands are reported here.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from frontrunner.configs import presets
from frontrunner.configs.errors import SpecError
from frontrunner.launcher.display.terminal import guard
from frontrunner.launcher.errors import in_words, report
from frontrunner.parallelism import versions

# In the order of the help: module in ``commands`` and purpose. The module has a function of its own name, or
# ``app``, a typer.Typer with a group of commands.
COMMANDS = {
    "init": ("init", "Write a short run file for a model on a machine."),
    "check": ("check", "Check a run file and show what it resolves to."),
    "presets": ("presets", "List the machines, models, runs and sweeps that come along."),
    "schema": ("schema", "Print the JSON schema of run or sweep files."),
    "plan": ("plan", "Predict the memory and speed of a run."),
    "search": ("search", "Find the best layouts for a model on a machine."),
    "advise": ("advise", "Say how many nodes a training needs, what it costs, and how to run it."),
    "validate": ("validate", "Compare the planner with published runs."),
    "calibrate": ("calibrate", "Fit a machine's constants to measured runs."),
    "import": ("import_files", "Make a run file from another trainer's script, configuration or log."),
    "export": ("export", "Export a run to another trainer's configuration."),
    "data": ("data", "Prepare corpora for training."),
    "train": ("train", "Train a model."),
    "convert": ("convert", "Convert weights to or from Hugging Face format."),
    "analyze": ("analyze", "Compare runs from their records or logs."),
    "top": ("top", "Watch runs from their records."),
    "compare": ("compare", "Train with several engines and compare them."),
    "submit": ("submit", "Submit a run to Slurm."),
    "sweep": ("sweep", "Search a space of layouts with short trials."),
    "status": ("status", "Show the state of runs."),
    "logs": ("logs", "Print the output of a run."),
    "cancel": ("cancel", "Cancel a submitted run."),
    "doctor": ("doctor", "Check a cluster for problems before a run."),
    "completion": ("completion", "Print a script that completes commands in a shell."),
    "continue": ("continue_run", "Finish a job and submit the next (for job scripts)."),
}
_PACKAGE = "frontrunner.launcher.commands"


class _Group(TyperGroup):
    """Turns exceptions from a command into a message and an exit code."""

    as_json = False
    #: The word that an empty argument follows; None if there is none.
    before_nothing: str | None = None

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Also says what to do with a file or preset in place of a command."""
        found = super().get_command(ctx, cmd_name)
        if found is None and (Path(cmd_name).exists() or presets.kind_of(cmd_name)):
            ctx.fail(f"{cmd_name!r} is not a command; put one before it, such as check, plan or train")
        return found

    def invoke(self, ctx: Any) -> Any:  # typer's context; its module differs between versions
        try:
            if self.before_nothing is not None:
                ctx.fail(f"what follows {self.before_nothing!r} is empty; give a value, or set its variable")
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, typer.BadParameter.__mro__[2]):  # a wrong option: typer shows the usage
                _tell_usage(error, self.as_json)
                raise
            raise typer.Exit(report(error, self.as_json)) from None


def _tell_usage(error: Any, as_json: bool) -> None:
    """Put a wrong option in a user's words; with ``--json``, also on stdout."""
    error.message = in_words(error)
    if as_json:
        print(json.dumps({"error": error.format_message()}), flush=True)


def build(arguments: Sequence[str]) -> typer.Typer:
    """The application for these arguments; other commands have only a name and a purpose."""
    app = typer.Typer(
        cls=type(
            "_Group",
            (_Group,),
            {"as_json": "--json" in arguments, "before_nothing": _before_nothing(arguments)},
        ),
        no_args_is_help=True,
        context_settings={"help_option_names": ["--help", "-h"]},
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_frontrunner)
    asked = next((argument for argument in arguments if not argument.startswith("-")), "")
    for name, (place, purpose) in COMMANDS.items():
        if name != asked:
            app.command(name, short_help=purpose)(lambda: None)
            continue
        module = importlib.import_module(f"{_PACKAGE}.{place}")
        if hasattr(module, "app"):
            for each in module.app.registered_commands:  # typer would cut sentences to the width
                each.short_help = (inspect.getdoc(each.callback) or "").partition("\n\n")[0]
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, place))
    return app


def _before_nothing(arguments: Sequence[str]) -> str | None:
    """The word that an empty argument follows: mostly, a variable of a script is not set."""
    for before, word in zip(["frontrunner", *arguments], arguments, strict=False):
        if word == "--":
            break
        if word == "" or re.fullmatch(r"--[\w-]+=", word):
            return word.removesuffix("=") or before
    return None


def main() -> None:
    """The console script."""
    guard()
    try:
        versions.check(["python"])  # before importing a command, which fails on an old Python
    except SpecError as error:
        sys.exit(report(error, "--json" in sys.argv))
    try:
        try:
            build(sys.argv[1:])()
        finally:
            sys.stdout.flush()
            if "torch" not in sys.modules:
                gc.freeze()  # or Python looks for garbage among all modules before it exits, for 0.1 s
    except BrokenPipeError:  # the reader of our output is gone, as with `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(metadata.version("frontrunner"))
        raise typer.Exit


def _frontrunner(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Plan, train and submit LLM training on AMD supercomputers."""
