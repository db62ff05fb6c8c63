"""How the nodes of a machine are grouped by its network."""

from typing import Annotated

from pydantic import Field

from frontrunner.configs.types import Frozen, PositiveInt


class GroupsSpec(Frozen):
    """Groups of a dragonfly network: full bandwidth inside a group, less between groups."""

    nodes: PositiveInt
    """Nodes per group."""
    taper: Annotated[float, Field(gt=0, le=1)]
    """Bandwidth out of a group over the bandwidth that its nodes inject."""
