"""Runs our program: ``frontrunner WORDS`` in a process of its own, soon started.

The process is forked by :mod:`support.program_server`, and so are the ranks that it starts on this machine.
It is started anew instead where its environment has another value of a variable that Python or the C library
reads as it starts. Tests of the start itself, and those that need the process while it runs, start
:data:`FRONTRUNNER` themselves.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from frontrunner.launcher.ranks import local
from frontrunner.parallelism.rendezvous import LOOPBACK

FRONTRUNNER = str(Path(sys.executable).with_name("frontrunner"))
_READ_AT_START = ("PYTHON", "LC_", "LANG", "TZ", "LD_")
_HAVE_RANKS = {"train", "compare", "sweep", "--first-day"}
#: A test's own variables, by which it finds what it has left running, are not for servers.
_BEFORE_TESTS = {key: value for key, value in os.environ.items() if not key.startswith(_READ_AT_START)}


def run(
    *words: str, folder: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 200
) -> subprocess.CompletedProcess[str]:
    """Run ``frontrunner WORDS`` with its output in pipes; what is not UTF-8 comes as surrogates.

    ``env`` is its whole environment: that of the tests, if none is given.
    """
    (output, its_output), (messages, its_messages) = os.pipe(), os.pipe()
    with ThreadPoolExecutor(2) as readers:
        read = [readers.submit(_read, pipe) for pipe in (output, messages)]
        try:
            process = start((0, its_output, its_messages), words, folder, env)
        finally:
            os.close(its_output)
            os.close(its_messages)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
    texts = [each.result().decode("utf-8", "surrogateescape") for each in read]
    return subprocess.CompletedProcess([FRONTRUNNER, *words], code, *texts)


def _read(pipe: int) -> bytes:
    with open(pipe, "rb") as file:
        return file.read()


def start(
    streams: tuple[int, int, int],
    words: Sequence[str],
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Forked | subprocess.Popen[bytes]:
    """Start ``frontrunner WORDS`` with these open files as its streams."""
    env = dict(os.environ if env is None else env)
    if _start_of_python(env) != _start_of_python(os.environ):
        command = [FRONTRUNNER, *words]
        return subprocess.Popen(
            command, stdin=streams[0], stdout=streams[1], stderr=streams[2], cwd=folder, env=env
        )
    ranks = server("fork_servers") if _HAVE_RANKS & {*words} else None
    request = {"program": FRONTRUNNER, "words": words, "folder": str((folder or Path()).absolute())}
    return Forked(server("commands"), request | {"env": env, "ranks": ranks}, streams)


class Forked:
    """A process that a server forks for a request, as much like a Popen as our callers need."""

    def __init__(self, server: str, request: Mapping[str, Any], streams: Sequence[int]) -> None:
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(f"\0{server}")
        socket.send_fds(self._socket, [json.dumps(request).encode()], list(streams))
        self.pid = int(self._socket.recv(64))

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._socket.settimeout(timeout)
            self.returncode = int(self._socket.recv(64))
            self._socket.close()
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait(60)


class WarmRanks:
    """In place of :func:`frontrunner.launcher.ranks.local.start_server`: forks what that would start.

    ``server`` is the name of the socket of the server of ranks, where it is known.
    """

    def __init__(self, server: str | None = None) -> None:
        self._server, self._anew = server, local.start_server

    def __call__(self, request: dict[str, Any], log: IO[bytes]) -> Any:
        if request["preload"] != list(local.PRELOAD):
            return self._anew(request, log)
        (its_input, lifeline), (reports, its_output) = os.pipe(), os.pipe()
        asked = {"program": "-c", "words": [json.dumps(request), *sys.path], "folder": str(Path.cwd())}
        env = {"OMP_NUM_THREADS": "1", **os.environ, **LOOPBACK}
        streams = its_input, its_output, log.fileno()
        process = Forked(self._server or server("fork_servers"), asked | {"env": env}, streams)
        os.close(its_input)
        os.close(its_output)
        process.stdin, process.stdout = os.fdopen(lifeline, "wb"), os.fdopen(reports, "rb")
        return process


def _start_of_python(env: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in env.items() if key.startswith(_READ_AT_START)}


#: Of each kind of server: what it was started with, its name, and the end of its standard input that is ours.
_servers: dict[tuple[str, ...], tuple[dict[str, str], str, IO[bytes]]] = {}


def server(kind: str, *preload: str) -> str:
    """Name of the server's socket; it is started where none was, or none with Python's start as it is now."""
    wanted = _start_of_python(os.environ)
    key = kind, *preload
    if key not in _servers or _servers[key][0] != wanted:
        name = f"frontrunner-{kind}-{uuid.uuid4()}"
        # OMP: threads that a library starts as it is imported would be missing in what is forked.
        env = _BEFORE_TESTS | wanted | {"OMP_NUM_THREADS": "1"}
        # Not -m, by which the command line would call itself.
        code = "from support.program_server import main; main()"
        command = [sys.executable, "-P", "-c", code, kind, name, *preload]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=env, cwd="/")
        assert process.stdin is not None
        _servers[key] = wanted, name, process.stdin
        _wait_for(name, process)
    return _servers[key][1]


def _wait_for(name: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while f"@{name}" not in Path("/proc/net/unix").read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
