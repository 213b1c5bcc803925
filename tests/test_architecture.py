"""The house: which room may import which, and what no file may do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "safemix"
# From the bottom of the house up: a room imports itself and rooms before it.
ROOMS = (
    "errors",
    "settings_base",
    "settings_levers",
    "settings_paraphrase",
    "settings_mitigation",
    "settings_evaluation",
    "settings_controller",
    "settings_tree",
    "settings",
    "rows",
    "llm",
    "screening",
    "prompting",
    "styles",
    "mitigation",
    "mixture",
    "loading",
    "tracking",
    "hosts",
    "evaluate",
    "training",
    "tuning",
    "cli",
)
MAX_LINES = 320
# Longer ones that hold one thing together; they may shrink, not grow.
LONGER = {
    "safemix/training/ds_config.py": 344,
    "safemix/training/memory.py": 321,
}
FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in FILES]


def imported(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides which room it is from"
            yield node.module or ""
            # `from safemix import errors` names a room too.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def test_every_room_is_in_the_list() -> None:
    known = {*ROOMS, "__init__"}
    assert {room(path) for path in FILES} <= known
    assert len(FILES) > 50, "the files are found"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_run_one_way(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "safemix" or len(parts) == 1 or parts[1] not in ROOMS:
            continue
        assert ROOMS.index(parts[1]) <= ROOMS.index(here), f"{here} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_file_is_short_and_safe(path: Path) -> None:
    text = path.read_text("utf-8")
    longest = LONGER.get(path.relative_to(ROOT).as_posix(), MAX_LINES)
    assert len(text.splitlines()) <= longest, "split it: one thing a file"
    modules = {name.split(".")[0] for name in imported(path)}
    assert not modules & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.keyword):
            yes = isinstance(node.value, ast.Constant) and node.value.value is True
            assert not (yes and node.arg in ("trust_remote_code", "shell", "allow_pickle"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            assert called not in ("torch.load", "torch.save", "os.system", "yaml.load"), called


def test_the_plan_needs_only_numpy_and_the_standard_library() -> None:
    for path in (PACKAGE / "mixture").glob("*.py"):
        for name in imported(path):
            assert name.split(".")[0] not in ("torch", "transformers", "datasets", "pandas"), path
