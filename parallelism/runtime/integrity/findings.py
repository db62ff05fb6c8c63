"""What was found to be corrupted, and the error that says so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from frontrunner.parallelism.runtime.integrity.copies import Odd
from frontrunner.parallelism.runtime.integrity.ledger import Changed
from frontrunner.run_folder.endings import Corrupted

_MOST = 4


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong; ``places`` (host and device) belong to ``ranks``, ``certainty`` is lowest for
    what a rank found in itself."""

    ranks: tuple[int, ...]
    what: str
    certainty: int
    places: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, odd: Iterable[Odd], changed: Iterable[Changed], local: Iterable[tuple[str, int]], rank: int
    ) -> list[Finding]:
        """The findings of ``rank``: of all ranks (``odd``), of its messages and of its own state."""
        found = [cls((rank,), f"{what}, first before the update of step {step}", 0) for what, step in local]
        for kind, sender, receiver in changed:
            ranks = tuple(dict.fromkeys((sender, receiver)))
            found.append(cls(ranks, f"{kind} arrived as other bytes than were sent", 1))
        for one in odd:
            what = f"{one.kind} differ from those of the other {one.of - len(one.ranks)} that hold them"
            pair = f"{one.kind} of these should be equal and are not"
            found.append(cls(one.ranks, what if one.outvoted else pair, 1 if one.outvoted else 2))
        return found

    def at(self, places: Sequence[str]) -> Finding:
        return replace(self, places=tuple(places[rank] for rank in self.ranks))

    def __str__(self) -> str:
        named = [f"rank {rank} on {place}" for rank, place in zip(self.ranks, self.places, strict=True)]
        more = [f"{len(named) - _MOST} more"] if len(named) > _MOST else []
        return f"{' and '.join([*named[:_MOST], *more])}: {self.what}"


def corrupted(step: int, found: Iterable[Finding]) -> Corrupted:
    """The error for what was found up to and with ``step``; names the likeliest rank."""
    ordered = sorted(found, key=lambda finding: finding.certainty)
    more = [f"and {len(ordered) - _MOST} more findings"] if len(ordered) > _MOST else []
    first = ordered[0]
    text = "; ".join([*map(str, ordered[:_MOST]), *more])
    return Corrupted(step, text, first.ranks[0], first.places[0].split(" ")[0])
