"""The README's diffs are those between the scripts that the tests run, and they are short."""

from __future__ import annotations

import difflib
import re

import pytest
from hosts_launching import ROOT, SCRIPTS

README = ROOT / "safemix" / "hosts" / "README.md"
HOSTS = ("ddp", "engine", "trainer")
MOST_LINES = 8


def hunks(host: str) -> list[str]:
    """The unified diff from a script before to the one after, without places in the file."""
    before, after = (
        (SCRIPTS / f"{host}_{when}.py").read_text("utf-8").splitlines()
        for when in ("before", "after")
    )
    lines = list(difflib.unified_diff(before, after, n=1, lineterm=""))[2:]
    return ["@@" if line.startswith("@@") else line for line in lines]


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_needs_at_most_eight_changed_or_added_lines(host: str) -> None:
    added = [line for line in hunks(host) if line.startswith("+") and line != "+"]
    assert 0 < len(added) <= MOST_LINES
    assert all(len(line) <= 101 for line in added)


def test_the_readme_shows_these_diffs_and_no_others() -> None:
    shown = re.findall(r"```diff\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)
    assert shown == ["\n".join(hunks(host)) + "\n" for host in HOSTS]


def test_every_error_in_the_table_can_be_raised() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "safemix/hosts").glob("*.py"))
    flat = re.sub(r'"\s*\n\s*f?"', "", source)
    table = re.findall(r"^\| `(.*?)` \|", README.read_text("utf-8"), flags=re.MULTILINE)
    told = [line for line in table if not line.endswith(".py")]
    assert len(told) == 9
    for line in told:
        for part in line.replace("for 1 ranks but 2", "...").split("..."):
            assert part in flat, line
