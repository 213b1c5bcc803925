"""Gives back the places of a trial's workers when the trial was ended from outside.

A scheduler that stops or pauses a trial ends the function that drives it. Ray ends the workers
then, but keeps their placement group, which belongs to the whole job; Ray Train's own cleaner asks
Ray's dashboard whether the trial still lives, and does nothing where there is none (compare
ray-project/ray#54305). The next trial would wait for ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

PLACES: Final = "placement_group.txt"


def note_places(folder: Path) -> None:
    """Note the placement group of this worker; one rank of a trial calls it."""
    from ray.util import get_current_placement_group

    group = get_current_placement_group()
    if group is not None:
        (folder / PLACES).write_text(group.id.hex() + "\n", "ascii")


def release_places(folder: Path) -> None:
    """Remove the placement group that was noted in a trial's folder, if it is still there."""
    path = folder / PLACES
    if not path.exists():
        return
    from ray import PlacementGroupID
    from ray.util.placement_group import (
        PlacementGroup,
        placement_group_table,
        remove_placement_group,
    )

    number = path.read_text("ascii").strip()
    known = placement_group_table()
    if number in known and known[number].get("state") != "REMOVED":
        remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(number)))
    path.unlink(missing_ok=True)
