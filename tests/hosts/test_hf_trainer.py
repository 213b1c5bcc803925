"""SafeMixTrainer on one process: losses, evaluation, resume, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import math

import pytest
import torch
from hosts_checks import check_parity
from hosts_launching import SCRIPTS, SIZES, chat, fill
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from safemix import MixedDataset, MixturePlan, SafeMixCollator, SafeMixTrainer
from safemix.errors import CheckpointError, HostError, PlanError


@pytest.fixture(scope="module", autouse=True)
def small_dataset():
    return MixedDataset(
        {name: [{"messages": chat(name, n)} for n in range(size)] for name, size in SIZES.items()}
    )


@pytest.fixture
def make(tiny_model, tmp_path, small_dataset):
    """Makes a trainer: 8 rows a step in 2 micro steps, 9 steps an epoch; `more` are arguments."""
    collator = SafeMixCollator(AutoTokenizer.from_pretrained(tiny_model))

    def made(ratio=0.125, *, seed=0, trainer=None, kind=SafeMixTrainer, **more):
        arguments = {
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "max_steps": 4,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            **more,
        }
        given = {"train_dataset": small_dataset, "data_collator": collator, **(trainer or {})}
        if kind is SafeMixTrainer:
            given["plan"] = MixturePlan(small_dataset.sizes, {"safety": ratio}, 8, seed=seed)
        return kind(
            model=AutoModelForCausalLM.from_pretrained(tiny_model),
            args=TrainingArguments(**arguments),
            **given,
        )

    return made


def logged(trainer):
    return [log for log in trainer.state.log_history if "loss" in log]


@pytest.fixture(scope="module")
def parity():
    spec = importlib.util.spec_from_file_location("parity", SCRIPTS / "parity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_total_loss_is_the_stock_trainers(parity, tiny_model, tmp_path):
    result = parity.compare(fill(tmp_path, tiny_model), ranks=1, accumulation=4)
    check_parity(result)
    # one cross-entropy and one forward a micro step, as in the stock Trainer
    assert result["calls"] == result["stock_calls"] == {"losses": 32, "forwards": 32}


def test_the_loss_of_a_source_is_the_models_loss_on_its_rows(make, small_dataset):
    trainer = make(max_steps=1)
    step = trainer.plan.step(0)
    collate, model = trainer.data_collator, trainer.model.eval()
    expected = {}
    for number, name in enumerate(trainer.plan.sources):
        rows = [small_dataset.sources[name][int(r)] for r in step.row[step.source == number]]
        batch = collate(rows)
        del batch["source"], batch["row"]
        with torch.no_grad():
            expected[name] = float(model(**batch).loss)
    trainer.train()
    log = logged(trainer)[0]
    assert log["utility/loss"] == pytest.approx(expected["task"], rel=1e-5)
    assert log["safety/loss"] == pytest.approx(expected["safety"], rel=1e-5)
    assert log["safety/row_share"] == 0.125
    assert log["mix/ratio"] == 0.125
    assert log["mix/passes/task"] == 7 / 60


def test_a_source_with_no_row_in_the_reading_has_no_loss(make):
    trainer = make(ratio=1 / 16)
    trainer.train()
    with_safety = [log["safety/row_share"] > 0 for log in logged(trainer)]
    assert with_safety.count(True) == 2
    assert ["safety/loss" in log for log in logged(trainer)] == with_safety
    for log in logged(trainer):
        if "safety/loss" not in log:
            assert math.isclose(log["utility/loss"], log["loss"], abs_tol=2e-6)


def test_readings_over_several_steps_are_means_over_all_their_tokens(make):
    single, every_four = make(), make(logging_steps=4)
    single.train()
    every_four.train()
    (log,) = logged(every_four)
    assert log["safety/row_share"] == 0.125
    losses = [s["safety/loss"] for s in logged(single)]
    assert min(losses) < log["safety/loss"] < max(losses)


def test_bf16(make):
    trainer = make(bf16=True)
    trainer.train()
    stock = logged(trainer)
    assert len(stock) == 4
    for log in stock:
        shares = [(log[f"{s}/token_share"], log[f"{s}/loss"]) for s in ("utility", "safety")]
        assert sum(s * x for s, x in shares) == pytest.approx(log["loss"], rel=1e-5)


def test_evaluation_takes_a_mixed_dataset_and_is_not_counted(make, small_dataset):
    plain = make()
    plain.train()
    some = MixedDataset({name: rows[:5] for name, rows in small_dataset.sources.items()})
    trainer = make(trainer={"eval_dataset": some}, eval_strategy="steps", eval_steps=1)
    trainer.train()
    assert [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log][3:]
    keys = ("loss", "utility/loss", "safety/loss", "safety/row_share", "safety/token_share")
    for ours, other in zip(logged(trainer), logged(plain), strict=True):
        assert {key: ours[key] for key in keys} == {key: other[key] for key in keys}
    predicted = trainer.predict(some)
    assert predicted.predictions.shape[0] == 10
    assert trainer.meter.read()["task"]["rows"] == 0


def test_the_evaluation_loss_is_the_stock_trainers(make, small_dataset):
    some = [row for rows in small_dataset.sources.values() for row in rows[:5]]
    trainer = make()
    stock = make(kind=Trainer, remove_unused_columns=False)
    collate = trainer.data_collator

    def without_origin(rows):
        batch = collate(rows)
        del batch["source"], batch["row"]
        return batch

    stock.data_collator = without_origin
    ours = trainer.evaluate(some)["eval_loss"]
    assert ours == pytest.approx(stock.evaluate(some)["eval_loss"], abs=1e-6)


def test_a_log_of_ones_own_starts_no_collective(make):
    trainer = make()
    trainer.train()
    trainer.meter.read = None  # would be called on all ranks
    trainer.log({"loss": 1.0})
    assert "safety/loss" not in trainer.state.log_history[-1]


def test_training_again_begins_at_the_first_step(make, tmp_path):
    audit = tmp_path / "audit.jsonl"
    trainer = make(trainer={"audit": audit})
    trainer.train()
    first = audit.read_text("utf-8")
    trainer.train()
    assert audit.read_text("utf-8") == first
    assert trainer.guard.step == 4


# ---- resume ------------------------------------------------------------------------------------


@pytest.fixture
def saved(make, tmp_path):
    make(save_strategy="steps", save_steps=2).train()
    return tmp_path / "out" / "checkpoint-2"


def rows_of(audit):
    lines = [json.loads(line) for line in audit.read_text("utf-8").splitlines()]
    steps = sorted({line["step"] for line in lines})
    return {
        s: [tuple(r) for line in lines if line["step"] == s for r in line["rows"]] for s in steps
    }


def test_another_ratio_on_resume_holds_from_that_step(make, saved, tmp_path):
    audit = tmp_path / "audit.jsonl"
    trainer = make(ratio=0.5, trainer={"audit": audit})
    trainer.train(resume_from_checkpoint=str(saved))
    rows = rows_of(audit)
    assert list(rows) == [2, 3]
    assert [sum(source == "safety" for source, _ in rows[step]) for step in rows] == [4, 4]
    assert trainer.plan.step(1).counts["safety"] == 1
    # each source goes on where it was: no row of the first steps comes again
    before = {("safety", int(r)) for s in (0, 1) for r in trainer.plan.step(s).row[-1:]}
    assert not before & set(rows[2] + rows[3])


def test_resume_true_takes_the_last_checkpoint_and_asks_for_one(make, saved):
    trainer = make(max_steps=5)
    trainer.train(resume_from_checkpoint=True)
    assert [log["step"] for log in logged(trainer)] == [1, 2, 3, 4, 5]
    assert trainer._initial_global_step == 4
    fresh = make(output_dir=str(saved.parent.parent / "other"))
    with pytest.raises(CheckpointError, match="other has no checkpoint: leave it out"):
        fresh.train(resume_from_checkpoint=True)


def test_a_damaged_or_foreign_checkpoint_is_refused(make, saved):
    with pytest.raises(PlanError, match="seed is 5 but the checkpoint has 0"):
        make(seed=5).train(resume_from_checkpoint=str(saved))
    state = saved / "safemix.json"
    text = state.read_text("utf-8")
    state.write_text(text.replace('"step": 2', '"step": 3'), "utf-8")
    with pytest.raises(CheckpointError, match="plan of step 3 but a trainer state of step 2"):
        make().train(resume_from_checkpoint=str(saved))
    state.write_text(text[:50], "utf-8")
    with pytest.raises(CheckpointError, match="cannot be read"):
        make().train(resume_from_checkpoint=str(saved))
    state.unlink()
    with pytest.raises(CheckpointError, match="was not written by safemix or is incomplete"):
        make().train(resume_from_checkpoint=str(saved))


# ---- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"gradient_accumulation_steps": 3}, "wrong accumulation count: .*is 3, .*needs 2"),
        ({"accelerator_config": {"split_batches": True}}, "split_batches deals rows otherwise"),
        ({"accelerator_config": {"dispatch_batches": True}}, "dispatch_batches deals rows"),
        ({"train_sampling_strategy": "group_by_length"}, "'group_by_length' orders rows otherwise"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size changes the micro batch"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is not supported"),
    ],
)
def test_arguments_that_would_deal_rows_otherwise_are_refused(make, arguments, told):
    with pytest.raises(HostError, match=told):
        make(**arguments)


def test_other_datasets_and_losses_are_refused(make, small_dataset):
    other = MixedDataset({"task": [{}] * 60, "safety": [{}] * 9})
    with pytest.raises(HostError, match=r"rows .*'safety': 9.*, the plan .*'safety': 10"):
        make(trainer={"train_dataset": other})
    with pytest.raises(HostError, match="train_dataset is list; give a MixedDataset"):
        make(trainer={"train_dataset": [{}] * 70})
    with pytest.raises(HostError, match="compute_loss_func is taken"):
        make(trainer={"compute_loss_func": lambda *a, **k: None})
    with pytest.raises(HostError, match="needs args, a TrainingArguments"):
        SafeMixTrainer(plan=make().plan, train_dataset=small_dataset)
    with pytest.raises(HostError, match="data_collator, or the tokenizer as processing_class"):
        make(trainer={"data_collator": None})
    with pytest.raises(PlanError, match="not divisible"):
        make(per_device_train_batch_size=3)
