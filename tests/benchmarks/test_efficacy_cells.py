"""The cells of the efficacy study, their settings, and the variants."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from efficacy_cells import (
    FULL,
    MITIGATIONS,
    QUICK,
    SMALL,
    STRATEGIES,
    TASKS,
    WITHOUT_ROWS,
    Cell,
    Size,
    full_matrix,
    merged,
    run_settings,
    small_matrix,
)
from efficacy_variants import OFF, VARIANTS, variant_cells

from safemix.errors import SettingsError
from safemix.loading.weights import FirstTokens, first_tokens_of
from safemix.mitigation.paraphrase import mimic_options
from safemix.mitigation.registry import mitigation_for
from safemix.settings import parse_settings

MATRICES = {"small": small_matrix, "full": full_matrix, "variants": lambda: variant_cells(VARIANTS)}
# What a variant changes in a run's settings beside `bare`, and nothing else.
PARTS = {"mitigation.plain_share", "mitigation.wrapper_share"}
FIRST, LOOKALIKES = "safety.first_tokens", "mitigation.lookalikes"
ANCHOR = "safety.anchor"
OWN = {
    *(LOOKALIKES, *PARTS, FIRST, "mitigation.answers", "cache_dir"),
    "mitigation.answer_design",
}
AUTO = {
    *(*OWN, "mitigation.logit_adjustment"),
    *(f"evaluation.{key}" for key in ("probe_every", "prompts", "harmful", "lookalikes")),
}
LEVERS = {
    "bare": set(),
    "first_5": {FIRST},
    "first_10": {FIRST},
    "first_20": {FIRST},
    "few_rows": {"safety.limit"},
    "more_rows": {"ratio"},
    "tokens": {"ratio_of"},
    "lookalikes": {LOOKALIKES},
    "plain_part": {"mitigation.plain_share"},
    "wrapper_part": {"mitigation.wrapper_share"},
    "option": {"mitigation.answer_design"},
    "two_epochs": {"epochs"},
    "low_rate": {"learning_rate"},
    "first_lookalikes": {LOOKALIKES, FIRST},
    "first_parts": {*PARTS, FIRST},
    # Where none is given, the design is `text`, and the weight that of the mitigation.
    "default": {LOOKALIKES, *PARTS, FIRST, "mitigation.answer_design"},
    "default_3": {LOOKALIKES, *PARTS, FIRST, "mitigation.answer_design"},
    "default_10": {LOOKALIKES, *PARTS, FIRST, "mitigation.answer_design"},
    "default_20": {LOOKALIKES, *PARTS, FIRST, "mitigation.answer_design"},
    "default_styled": {LOOKALIKES, *PARTS, FIRST, "mitigation.answer_design"},
    "default_more": {LOOKALIKES, *PARTS, FIRST, "mitigation.answer_design"},
    "default_option": {LOOKALIKES, *PARTS, FIRST, "mitigation.answer_design"},
    "anchor": {LOOKALIKES, *PARTS, ANCHOR, "mitigation.answer_design"},
    "anchor_300": {LOOKALIKES, *PARTS, ANCHOR, "mitigation.answer_design"},
    "own": OWN,
    "own_more": OWN,
    "adjusted": {*OWN, "mitigation.logit_adjustment"},
    "auto": AUTO,
    "auto_layout": AUTO,
    "auto_20": AUTO,
    "auto_30": AUTO,
    "auto_30b": AUTO,
    "auto_30c": AUTO,
    "auto_30d": AUTO,
    "default_anchor": {LOOKALIKES, *PARTS, FIRST, ANCHOR, "mitigation.answer_design"},
}


def settings(cell: Cell, size: Size = SMALL, **machine: Any) -> dict[str, Any]:
    places = {"model": "aligned", "data": Path("data"), "folder": Path("run")}
    return run_settings(cell, size, machine={"micro_batch_size": 4} | machine, **places)


def test_the_preset_is_what_was_measured() -> None:
    cell = next(c for c in variant_cells(["auto_30d"]))
    measured = parse_settings(settings(cell))
    changes = {"mitigation": {"name": "paraphrase", "preset": "calibrated"}}
    preset = parse_settings(settings(replace(cell, changes=changes)))
    made, same = (mitigation_for(one).adjust(one) for one in (measured, preset))
    assert [Fraction(str(one.sources["lookalikes"].ratio)) for one in (made, same)] == [
        Fraction("0.3")
    ] * 2
    assert first_tokens_of(made) == first_tokens_of(same)
    one, other = (found.mitigation.model_dump(exclude={"preset"}) for found in (made, same))
    for tree in (one, other):
        assert tree["answers"].pop("batch_size") > 0, "the study's are larger"
        for key in ("share", "per_safety_row"):
            del tree["lookalikes"][key]
    assert one == other


def flat(tree: Any, depth: int = 2, begin: str = "") -> dict[str, Any]:
    """Keys of a tree with points between them, two deep."""
    if not isinstance(tree, dict) or not depth:
        return {begin: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, depth - 1, f"{begin}.{key}".strip("."))
    return found


@pytest.mark.parametrize("name", MATRICES)
def test_every_cell_has_a_name_of_its_own_that_can_be_a_folder(name: str) -> None:
    names = [cell.id for cell in MATRICES[name]()]
    assert len(set(names)) == len(names)
    assert len({name.lower() for name in names}) == len(names), "on disks that fold case too"
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,100}", name) for name in names)
    assert not any(name.endswith((".json", ".")) for name in names)


def test_the_small_matrix_has_forty_cells() -> None:
    cells = list(small_matrix())
    assert len(cells) == 40
    at_default = Counter((cell.task, cell.strategy) for cell in cells[:32])
    places = [(task, s) for s in ("autoif+aoa", "benign") for task in ("piqa", "gsm8k")]
    assert at_default == dict.fromkeys(places, len(MITIGATIONS))
    assert {(c.mitigation, c.ratio) for c in cells[32:]} == {
        (name, ratio) for name in ("base", "paraphrase") for ratio in (0.01, 0.02, 0.05, 0.2)
    }


def test_the_full_matrix_has_every_combination() -> None:
    cells = list(full_matrix())
    with_rows, ratios = set(MITIGATIONS) - WITHOUT_ROWS, (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    ways = {(name, 0.0) for name in WITHOUT_ROWS}
    ways |= {(name, ratio) for name in with_rows for ratio in ratios}
    assert len(cells) == 7 * 4 * (3 + 5 * 6) * 3 == len(TASKS) * len(STRATEGIES) * len(ways) * 3
    assert {(c.task, c.strategy, c.mitigation, c.ratio, c.seed) for c in cells} == {
        (task, strategy, *way, seed)
        for task in TASKS
        for strategy in STRATEGIES
        for way in ways
        for seed in range(3)
    }


@pytest.mark.parametrize("name", MATRICES)
def test_every_run_is_made_of_known_keys(name: str) -> None:
    size = FULL if name == "full" else SMALL
    for cell in MATRICES[name]():
        if cell.seed == 0:  # the others differ by a number
            found = parse_settings(settings(cell, size, ds_config="zero2"), cell.id)
            assert found.mitigation.name == cell.mitigation
            assert found.task.limit == size.task_rows
            assert (found.safety is not None) == (cell.mitigation not in WITHOUT_ROWS)


def test_a_key_that_is_not_known_would_be_found() -> None:
    cell = Cell("piqa", "benign", "base", changes={"safety": {"first_token": True}})
    with pytest.raises(SettingsError, match=r"unknown key .safety.*first_token"):
        parse_settings(settings(cell), "a cell")


def test_the_seed_of_a_cell_is_the_run_s() -> None:
    one, two = (flat(settings(Cell("piqa", "benign", "base", seed=seed))) for seed in (0, 2))
    assert {key for key in one if one[key] != two[key]} == {"seed"}


def test_benign_prompts_have_no_wrapper_and_only_aoa_confirms() -> None:
    found = {s: settings(Cell("piqa", s, "none", 0.0), QUICK) for s in STRATEGIES}
    assert found["benign"]["evaluation"]["dress"] == ["plain", "styled"]
    assert found["autoif"]["evaluation"]["dress"] == ["plain", "autoif", "styled"]
    confirming = [s for s, tree in found.items() if tree["task"]["prompting"]["confirm"]]
    assert confirming == ["aoa", "autoif+aoa"]


def test_each_variant_differs_from_bare_by_its_lever_alone() -> None:
    assert set(LEVERS) == set(VARIANTS) - {"controller"}
    places = {(cell.task, cell.strategy) for cell in variant_cells(["bare"])}
    assert places == {(task, way) for task in ("piqa", "gsm8k") for way in ("benign", "autoif+aoa")}
    for place in places:
        own = [c for c in variant_cells(list(LEVERS)) if (c.task, c.strategy) == place]
        read = {c.variant: flat(parse_settings(settings(c)).model_dump()) for c in own}
        bare = read["bare"]
        for name, tree in read.items():
            assert tree.keys() == bare.keys()
            assert {key for key in tree if tree[key] != bare[key]} == LEVERS[name], name


def test_the_controller_moves_the_ratio_of_the_default() -> None:
    made, default = (settings(next(variant_cells([name]))) for name in ("controller", "default"))
    assert {key for key in made if made[key] != default[key]} == {"ratio", "evaluation"}
    read = parse_settings(made)
    assert read.ratio.first == Fraction(str(default["ratio"]))  # as many steps
    assert (read.evaluation.margin, read.evaluation.every_margin) == ("odds", True)


def test_the_model_is_asked_once_for_all_cells() -> None:
    for cell in variant_cells(["own"]):
        made = settings(cell)
        read = parse_settings(made)
        assert read.cache_dir == "data/cache"
        assert read.mitigation.answers.max_new_tokens == SMALL.tokens
        assert (read.mitigation.plain_share, read.mitigation.wrapper_share) == (0.1, 0.3)
        weights = {"safety": FirstTokens(8, 5.0), "lookalikes": FirstTokens(8, 7.0)}
        assert first_tokens_of(read) == weights


def test_the_default_is_what_the_mitigation_is_by_name_alone() -> None:
    plain = Cell("piqa", "autoif+aoa", "paraphrase")
    default = next(variant_cells(["default"]))
    assert settings(default) == settings(plain)
    read = parse_settings(settings(default))
    own = read.mitigation
    assert (own.plain_share, own.wrapper_share, own.answer_design) == (0.15, 0.35, None)
    assert mimic_options(own, seed=0).answer_design == "text"
    adjusted = mitigation_for(read).adjust(read)
    assert Fraction(str(adjusted.sources["lookalikes"].ratio)) == Fraction("0.1")
    weights = first_tokens_of(adjusted)
    assert weights == dict.fromkeys(("safety", "lookalikes"), FirstTokens(8, 5.0))
    assert VARIANTS["default_20"] == {"safety": {"first_tokens": {"count": 8, "weight": 20.0}}}


def test_the_parts_of_the_default_are_seen_alone_with_its_values() -> None:
    cells = {cell.variant: parse_settings(settings(cell)) for cell in variant_cells(VARIANTS)}
    default = cells["default"].mitigation
    assert cells["lookalikes"].mitigation.lookalikes == default.lookalikes
    assert cells["first_lookalikes"].mitigation.lookalikes == default.lookalikes
    assert cells["plain_part"].mitigation.plain_share == default.plain_share
    assert cells["wrapper_part"].mitigation.wrapper_share == default.wrapper_share
    parts = cells["first_parts"].mitigation
    assert (parts.plain_share, parts.wrapper_share) == (default.plain_share, default.wrapper_share)
    assert first_tokens_of(cells["first_10"])["safety"] == FirstTokens(8, 10.0)


def test_bare_has_every_lever_off() -> None:
    bare = flat(parse_settings(settings(next(variant_cells(["bare"])))).model_dump())
    told = {f"mitigation.{key}" for key in OFF["mitigation"]} | {"safety.first_tokens"}
    pulled = set().union(*LEVERS.values())
    assert {key for key in pulled if key.startswith(("mitigation.", "safety.first"))} <= told
    assert bare["mitigation.answer_design"] == "text"
    off = told - {"mitigation.name", "mitigation.answer_design"}
    assert not any(bare[key] for key in off), bare
    run = parse_settings(settings(next(variant_cells(["bare"]))))
    assert mitigation_for(run).adjust(run) is run
    assert first_tokens_of(run) == {}


def test_merging_goes_inside_and_leaves_both_as_they_were() -> None:
    tree = {"a": {"x": 1, "y": {"z": 2}}, "b": 3}
    changes = {"a": {"y": {"w": 4}}, "b": {"c": 5}}
    assert merged(tree, changes) == {"a": {"x": 1, "y": {"z": 2, "w": 4}}, "b": {"c": 5}}
    assert tree == {"a": {"x": 1, "y": {"z": 2}}, "b": 3}
