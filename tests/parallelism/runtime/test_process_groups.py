from __future__ import annotations

import pytest

pytest.importorskip("torch")

from support.ranks import run_ranks
from support.sockets import listening
from support.specs import run_spec


def test_ranks_of_one_machine_listen_on_loopback_alone() -> None:
    found = run_ranks(2, listening, run_spec(devices=2))
    assert [len(of_rank) > 0 for of_rank in found] == [True, True]
    assert all(all(of_rank) for of_rank in found)
