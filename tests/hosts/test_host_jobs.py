"""Real jobs of two processes: the rows each rank trains on, resumes, mistakes, losses.

Each fixture launches one job that runs several scripts; the tests look at what it left.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hosts_checks import check_parity
from hosts_launching import (
    GLOBAL_BATCH,
    MICRO_BATCH,
    RANKS,
    RATIO,
    ROOT,
    SIZES,
    audits,
    fill,
    forget_after,
    start,
)

from safemix.mixture import MixturePlan

pytestmark = pytest.mark.slow

SAVED_AT, EPOCHS = 13, 2
HOSTS = ("ddp", "trainer", "engine", "zero2")
ZERO2 = "--deepspeed ../zero2.json"
SCRIPTS = {
    "ddp": "ddp/ddp_after.py",
    "trainer": "trainer/trainer_after.py",
    "engine": "engine/engine_after.py",
    "zero2": f"zero2/trainer_after.py {ZERO2}",
}
STOCK = {
    "ddp": "ddp_stock/ddp_before.py",
    "trainer": "trainer_stock/trainer_before.py",
    "engine": "engine_stock/engine_before.py",
    "zero2": f"zero2_stock/trainer_before.py {ZERO2}",
}
LAUNCHERS = {"torchrun": ("ddp", "trainer"), "deepspeed": ("engine", "zero2")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    base = tmp_path_factory.mktemp("jobs")
    for host in HOSTS:
        fill(base / host, tiny_model)
        fill(base / f"{host}_stock", tiny_model)
    for name in ("mistakes", "engine_mistakes"):
        fill(base / name, tiny_model)
    (base / "zero2.json").write_text((ROOT / "ds_configs" / "zero2.json").read_text("utf-8"))
    return base


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, list[str]]:
    """Audits of uninterrupted runs; the scripts as they were before run in the same jobs."""
    for launcher, hosts in LAUNCHERS.items():
        jobs = [table[host] for host in hosts for table in (STOCK, SCRIPTS)]
        assert start(launcher, "in_one_job.py", *jobs, cwd=folder).returncode == 0
    return {host: audits(folder / host) for host in HOSTS}


@pytest.fixture(scope="module")
def resumed(folder: Path, whole: dict[str, list[str]]) -> dict[str, list[str]]:
    """Audits after the same commands again, in new processes, from the checkpoint of step 13.

    Of the lines before it only the last steps' are left, so that a run from the start would show.
    Loops with mistakes and the loss parity run in the same jobs.
    """
    for host in HOSTS:
        forget_after(folder / host, keep=f"checkpoint-{SAVED_AT}")
        for rank, text in enumerate(whole[host]):
            path = folder / host / "audit" / f"rank{rank}.jsonl"
            lines = text.splitlines(keepends=True)
            path.write_text("".join(line for line in lines if json.loads(line)["step"] > 10))
    mistakes = {
        "torchrun": ["mistakes/mistakes.py", "mistakes/parity.py"],
        "deepspeed": ["engine_mistakes/engine_mistakes.py"],
    }
    for launcher, hosts in LAUNCHERS.items():
        # The mistakes first: one of them needs a process that has no process group yet.
        jobs = mistakes[launcher] + [SCRIPTS[host] for host in hosts]
        assert start(launcher, "in_one_job.py", *jobs, cwd=folder).returncode == 0
    return {host: audits(folder / host) for host in HOSTS}


def plan() -> MixturePlan:
    return MixturePlan(SIZES, {"safety": RATIO}, GLOBAL_BATCH)


def planned(rank: int) -> list[dict[str, object]]:
    """What a rank's audit must hold, from `plan.grid` alone."""
    made = plan()
    lines = []
    for step in range(EPOCHS * made.steps_per_epoch):
        grid = made.grid(step, RANKS, MICRO_BATCH)
        for micro_step in range(grid.row.shape[0]):
            cell = zip(grid.source[micro_step, rank], grid.row[micro_step, rank], strict=True)
            rows = [[made.sources[s], int(r)] for s, r in cell]
            lines.append({"step": step, "micro_step": micro_step, "rows": rows})
    return lines


@pytest.mark.parametrize("host", HOSTS)
def test_every_rank_trains_on_the_planned_rows(whole: dict[str, list[str]], host: str) -> None:
    for rank in range(RANKS):
        assert [json.loads(line) for line in whole[host][rank].splitlines()] == planned(rank)


@pytest.mark.parametrize("host", HOSTS)
def test_a_resume_in_the_second_epoch_goes_on_with_the_same_rows(
    whole: dict[str, list[str]], resumed: dict[str, list[str]], host: str
) -> None:
    assert SAVED_AT % plan().steps_per_epoch not in (0, SAVED_AT)  # within a later epoch
    for before, after in zip(whole[host], resumed[host], strict=True):
        expected = [line for line in before.splitlines() if json.loads(line)["step"] > 10]
        assert after.splitlines() == expected


def told(folder: Path) -> dict[str, list[tuple[str | None, float]]]:
    """What every rank was told in each loop, and after how many seconds."""
    ranks = [json.loads((folder / f"told{r}.json").read_text("utf-8")) for r in range(RANKS)]
    return {name: [tuple(rank[name]) for rank in ranks] for name in ranks[0]}


MISTAKES = {
    "plain, right": None,
    "plain, 1 accumulation": "wrong accumulation count: the loop stepped after 1 micro steps",
    "plain, 3 accumulation": "wrong accumulation count: the loop has taken 3 micro steps",
    "plain, global view": "step 0: all ranks trained on the same rows: the sampler gives all",
    "plain, ratio changes": None,
    "plain, ratio changes, workers": None,
    "plain, other sampler": "step 0: rank 0 micro step 0 trained on",
    "plain, other sampler, one seed": "same rows: another sampler than the plan's gives",
    "plain, one rank shifted": "step 0: rank 1 micro step 0 trained on",
    "early sampler, guard": "made for 1 ranks but 2 train: make it after torch.distributed",
    "early sampler, no guard": "made for 1 ranks but 2 train: make it after torch.distributed",
    "accelerate, right": None,
    "accelerate, rank view": "step 0: the rows were dealt to ranks twice",
    "accelerate, split": "step 0: batches of 1 rows, not of 2",
    "accelerate, dispatched": "step 0: rank 0's rows were dealt to all ranks",
    "trainer, rank view": "step 0: the rows were dealt to ranks twice",
    "trainer, ratio changes": None,
    "trainer, 1 accumulation": "wrong accumulation count: gradient_accumulation_steps is 1",
    "trainer, right": None,
    # What the stock host does to a sampler of one's own: it trains on the first epoch's rows.
    "trainer, stock resume": "step 13: these are the rows of step 4: the position was not restored",
    "trainer, our resume": None,
}
ENGINE_MISTAKES = {
    "right": None,
    "1 accumulation": "wrong accumulation count or batch size: DeepSpeed has gradient_accumulation",
    "micro batch 1": "wrong accumulation count or batch size: DeepSpeed has train_micro_batch_size",
    "global view": "step 0: all ranks trained on the same rows: the sampler gives all",
    "deepspeed's own loader": "step 0: rank 0 micro step 0 trained on",
}


def check_told(folder: Path, expected: dict[str, str | None]) -> None:
    heard = told(folder)
    assert set(heard) == set(expected)
    for name, start_of_error in expected.items():
        for error, seconds in heard[name]:
            if start_of_error is None:
                assert error is None, (name, error)
            else:
                assert error is not None, name
                assert start_of_error in error
                assert "\n" not in error
            assert seconds < 20, name


def test_mistakes_stop_all_ranks_at_the_first_step(
    folder: Path, resumed: dict[str, list[str]]
) -> None:
    check_told(folder / "mistakes", MISTAKES)


def test_engine_mistakes_stop_all_ranks_at_the_first_step(
    folder: Path, resumed: dict[str, list[str]]
) -> None:
    check_told(folder / "engine_mistakes", ENGINE_MISTAKES)


def test_on_two_ranks_the_total_loss_is_the_stock_trainers(
    folder: Path, resumed: dict[str, list[str]]
) -> None:
    for rank in range(RANKS):
        result = json.loads((folder / "mistakes" / f"parity{rank}.json").read_text("utf-8"))
        check_parity(result)
    assert result["calls"] == result["stock_calls"] == {"losses": 16, "forwards": 16}
    # 1 safety row in 4 cells a step: at every step a rank had none
    shares = [log["safety/row_share"] for log in result["ours"]]
    assert shares == [RATIO] * len(shares)
