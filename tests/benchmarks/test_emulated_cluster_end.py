"""An emulated cluster leaves nothing behind and touches nothing that it did not make."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import emulate
import pytest
from emulated_cluster.cluster import ClusterError, EmulatedCluster
from emulated_cluster.rates import Transfer, measure

from support.emulation import MARK, emulates, machine_state, marked, topology

EMULATE = Path(emulate.__file__)


@emulates
def test_what_a_rank_leaves_running_ends_with_the_ranks(cluster: EmulatedCluster, mark: str) -> None:
    command = ["sh", "-c", f"{MARK}={mark} setsid sleep 1000 & sleep 0.1"]
    assert cluster.execute(command) == 0
    assert not marked(mark)


@emulates
def test_two_clusters_at_once_do_not_meet(cluster: EmulatedCluster) -> None:
    transfer = Transfer(0, 4, 1_000_000)
    with EmulatedCluster(topology(), preload=()) as other:
        before = cluster.bytes_sent()
        measure(other, [transfer])
        assert cluster.bytes_sent() == before
        assert other.bytes_sent()["network"] == pytest.approx(transfer.size, rel=0.03)
    assert len(cluster.call("support.on_cluster:large", 1)) == 8


@emulates
@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_the_machine_is_left_as_it_was(mark: str, error: type[BaseException] | None) -> None:
    before = machine_state()
    try:
        with EmulatedCluster(topology(nodes=1), preload=()) as up:
            up.execute(["true"])
            assert machine_state() == before
            if error:
                raise error
    except (ZeroDivisionError, KeyboardInterrupt):
        pass
    assert not marked(mark)
    assert machine_state() == before


@emulates
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_signal_leaves_anything_behind(mark: str, number: signal.Signals) -> None:
    """The fixture looks for what is left."""
    before = machine_state()
    command = [sys.executable, str(EMULATE), "--nodes", "1", "--", "sleep", "1000"]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while marked(mark).count("sleep 1000 ") < 8:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(15) == (130 if number == signal.SIGINT else -number)
    assert machine_state() == before


@emulates
def test_a_cluster_that_is_killed_from_outside_says_so(mark: str) -> None:
    up = EmulatedCluster(topology(nodes=1), preload=()).__enter__()
    os.kill(up._process.pid, signal.SIGKILL)
    with pytest.raises(ClusterError, match="the cluster's own process was killed by signal 9"):
        up.call("support.on_cluster:surroundings")


@emulates
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and a bridge of its own, as root")
def test_what_others_made_stays(tmp_path: Path) -> None:
    """In a network and a mount namespace that stand for the machine's."""
    script = f"""
    set -e
    mount -t tmpfs none /run
    ip netns add n0p0
    ip -n n0p0 link add hsn0 type veth peer name other
    ip link add switch type bridge
    ip link add n0p0 type veth peer name hsn0
    ip link set n0p0 master switch up
    ip address add 10.77.0.1/16 dev hsn0
    tc qdisc add dev hsn0 root handle 1: htb default 2
    look() {{ ip netns list; ip address; tc qdisc; bridge link; ip -n n0p0 address; }}
    look > {tmp_path}/before
    {shlex.join([sys.executable, str(EMULATE), "--nodes", "2", "--", "true"])}
    look > {tmp_path}/after
    """
    isolated = ["unshare", "--net", "--mount", "--propagation", "private"]
    subprocess.run([*isolated, "bash", "-c", script], check=True, timeout=60)
    before = (tmp_path / "before").read_text()
    assert "switch" in before
    assert (tmp_path / "after").read_text() == before


def test_the_process_that_ends_all_others_must_be_alone_with_them() -> None:
    """Only that it does not start: nothing here may come near a signal to all processes."""
    code = "from emulated_cluster.server import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(EMULATE.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    assert "must be process 1 of a process namespace" in done.stderr
