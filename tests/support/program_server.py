"""Processes that have everything imported, and fork what tests would otherwise start as a new process.

Half a second of processor time goes into the imports of each command that starts anew, and six into those of
ranks; tests call hundreds. What is forked here is a process of its own all the same, with streams, folder,
environment, arguments, signals and exit code as a new one has them; :mod:`support.program` asks for it.

Each request is a connection to an abstract socket. Its one message is an object and three open files:
standard input, output and error. The answers are the number of the process, then its exit code as
``subprocess`` has it. The server ends with its standard input.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

_MOST_BYTES = 1 << 20
#: What commands use at once, and what few of them use and takes long to import.
_COMMANDS = ("configs", "run_folder", "slurm", "parallelism", "launcher.commands", "launcher.display")
_LATE = {
    "analyze": ("analysis",),
    "sweep": ("launcher.sweeping",),
    "sweep report": ("launcher.sweeping.sensitivity",),
}
#: Modules that :func:`_import_all` leaves to those that name them: what only ranks or few commands import.
_LEFT_OUT = {"runtime", "guided", "boundary", "improvement", "sensitivity"}


def serve(name: str, late: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Until the tests have ended. Returns the request in each child, which is as a new process by then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the end of the tests is our end
    lifeline, warm = os.dup(0), set[str]()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as requests:
        requests.bind(f"\0{name}")
        requests.listen(64)
        while True:
            if lifeline in select.select([lifeline, requests.fileno()], [], [])[0]:
                os._exit(0)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            connection = requests.accept()[0]
            message, files, _, _ = socket.recv_fds(connection, _MOST_BYTES, 3)
            request: dict[str, Any] = json.loads(message)
            words = request["words"][:2]
            for command in {*words, " ".join(words)} & late.keys() - warm:
                warm.add(command)
                _import_all(late[command])
            gc.freeze()  # the collector would otherwise copy the pages that are shared
            if not os.fork():
                break
            connection.close()
            for file in files:
                os.close(file)
    os.close(lifeline)
    _wait_for_child(connection, files)
    connection.close()
    _become(request, files)
    return request


def _wait_for_child(connection: socket.socket, files: list[int]) -> None:
    """Fork once more and return in the child; its parent only tells how it ends."""
    process = os.fork()
    if process:
        for file in (0, 1, 2, *files):
            os.close(file)
        with suppress(OSError):  # nobody waits for it any more
            connection.send(str(process).encode())
            connection.send(str(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])).encode())
        os._exit(0)


def _import_all(packages: tuple[str, ...]) -> None:
    """Packages of ours with all of their modules, but for those that lack an extra or are left out."""
    for name in packages:
        with suppress(ImportError):
            module = importlib.import_module(f"frontrunner.{name}")
            inside = [each.name for each in pkgutil.iter_modules(getattr(module, "__path__", ()))]
            _import_all(tuple(f"{name}.{each}" for each in inside if each not in _LEFT_OUT))


def _become(request: dict[str, Any], files: list[int]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        stream = io.TextIOWrapper(
            open(number, "wb" if number else "rb", closefd=False),  # noqa: SIM115
            encoding=old.encoding,
            errors=old.errors,
            newline="\n" if number else None,
            line_buffering=number == 2 or os.isatty(number),
            write_through=old.write_through,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = [request["program"], *request["words"]]


def commands(name: str) -> None:
    """Of ``frontrunner``: what the console script does, with ranks from their own server."""
    from frontrunner.launcher import cli
    from frontrunner.launcher.ranks import local
    from support import program

    _import_all(_COMMANDS)
    request = serve(name, _LATE)
    if request["ranks"]:
        local.start_server = program.WarmRanks(request["ranks"])
    cli.main()


def fork_servers(name: str) -> None:
    """Of the fork servers that start ranks, with all that they import."""
    from frontrunner.launcher.ranks import forkserver, local

    _load(*local.PRELOAD)
    serve(name, {})
    os.setsid()
    sys.path[:] = sys.argv[2:]
    forkserver.main()


def ranks(name: str, *preload: str) -> None:
    """Of ranks that call a function of a test."""
    from support.ranks import PRELOAD, answer

    _load(*PRELOAD, *preload)
    serve(name, {})
    answer()


def _load(*modules: str) -> None:
    with warnings.catch_warnings(action="ignore"):  # they are for the ranks' log
        for module in modules:
            importlib.import_module(module)


def main() -> None:
    kinds: dict[str, Callable[..., None]]
    kinds = {"commands": commands, "fork_servers": fork_servers, "ranks": ranks}
    kinds[sys.argv[1]](*sys.argv[2:])
