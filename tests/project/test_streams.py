"""torch's streams have one owner: what goes around it would not be seen by the tests that look for races."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.tree import ROOT, modules

OWNER = Path("parallelism/runtime/streams.py")
#: Of torch.cuda, and of a tensor.
OF_CUDA = {"Stream", "Event", "stream", "current_stream", "default_stream", "synchronize", "ExternalStream"}
ANYWHERE = {"record_stream", "pin_memory", "non_blocking"}


def uses(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each use of a stream, an event or a copy that does not wait."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and (
            node.attr in ANYWHERE or (node.attr in OF_CUDA and ast.unparse(node.value).endswith("cuda"))
        ):
            yield node.lineno, node.attr
        elif isinstance(node, ast.keyword) and node.arg in ANYWHERE:
            yield node.lineno, node.arg
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch.cuda"):
            yield from ((node.lineno, alias.name) for alias in node.names)


def test_streams_are_used_in_one_module() -> None:
    found = {path: list(uses((ROOT / path).read_text())) for path in modules("parallelism")}
    assert len(found.pop(OWNER)) > 5, "a reader that finds nothing is broken"
    assert not {str(path): names for path, names in found.items() if names}


@pytest.mark.parametrize(
    "source",
    [
        "torch.cuda.current_stream().wait_stream(other)",
        "with torch.cuda.stream(side): pass",
        "made = torch.cuda.Event()",
        "from torch.cuda import Stream",
        "torch.cuda.synchronize()",
        "tensor.record_stream(side)",
        "tensor.to(device, non_blocking=True)",
        "torch.empty(3, pin_memory=True)",
    ],
)
def test_every_use_is_seen(source: str) -> None:
    assert list(uses(source))
