"""Run a program on every rank of an emulated cluster, for example

    python benchmarks/emulate.py --nodes 2 -- frontrunner train run.yaml --run-dir runs/emulated

or, with --measure, compare the measured rates of the links with their settings. Exits with the code of the
rank that failed first. When all ranks have ended, prints to stderr what the packages sent.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from emulated_cluster.cluster import ClusterError, EmulatedCluster
from emulated_cluster.rates import measure, transfers_of_packages
from emulated_cluster.topology import Topology

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import load_machine
from frontrunner.launcher.ranks.local import PRELOAD

_MEASURED_S = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parse(arguments)
    try:
        machine = load_machine(args.machine)
        topology = Topology.of(machine, args.nodes, scale=args.scale, shaped=not args.unshaped)
        preload = () if args.measure else PRELOAD
        with EmulatedCluster(topology, preload) as cluster:
            if args.measure:
                _print_rates(cluster)
                return 0
            code = cluster.execute(args.command)
            sent = ", ".join(f"{level} {count / 1e6:.2f} MB" for level, count in cluster.bytes_sent().items())
            print(f"sent by all packages: {sent}", file=sys.stderr)
            return code
    except KeyboardInterrupt:
        return 130
    except (SpecError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machine", default="emulated", help="a preset or file [default: emulated]")
    parser.add_argument("--nodes", type=int, default=2, help="[default: 2]")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="times the machine's link rates [default: 1]"
    )
    parser.add_argument("--unshaped", action="store_true", help="links that count and never wait")
    parser.add_argument(
        "--measure", action="store_true", help="measure the links instead of running a program"
    )
    parser.add_argument(
        "command", nargs="*", metavar="COMMAND", help="the program and its arguments, after --"
    )
    args = parser.parse_args(arguments)
    if bool(args.command) == args.measure:
        parser.error("give either a program to run, after --, or --measure")
    return args


def _print_rates(cluster: EmulatedCluster) -> None:
    """Each level alone, then all levels of all packages at once."""
    topology = cluster.topology
    transfers = transfers_of_packages(topology, _MEASURED_S)
    together = measure(cluster, transfers)
    print("level     set MB/s   alone   all at once (lowest .. highest of the packages)")
    for level, rate in topology.rates.items():
        shares = [
            seen / rate
            for transfer, seen in zip(transfers, together, strict=True)
            if topology.level(transfer.sender, transfer.receiver) == level
        ]
        if not shares:
            continue
        first = next(t for t in transfers if topology.level(t.sender, t.receiver) == level)
        alone = measure(cluster, [first])[0] / rate
        print(f"{level:8} {rate / 1e6:9.2f}   {alone:5.3f}   {min(shares):.3f} .. {max(shares):.3f}")


if __name__ == "__main__":
    sys.exit(main())
