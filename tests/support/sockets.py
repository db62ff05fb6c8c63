"""Where this process listens for connections of others."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.rendezvous import Rendezvous
from support.training import make_trainer

_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp (proc(5))
_LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


def listening(rendezvous: Rendezvous, spec: RunSpec) -> list[bool]:
    """Make a trainer; for each TCP socket that this rank listens on, whether it is of loopback alone."""
    make_trainer(rendezvous, spec)
    sockets = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            sockets.add(str(descriptor.readlink()))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            _, address, _, state, *_, inode = line.split()[:10]
            if state == _LISTEN and f"socket:[{inode}]" in sockets:
                found.append(address.split(":")[0] in _LOOPBACK)
    dist.barrier()  # rank 0 listens until all have looked
    dist.destroy_process_group()
    return found
