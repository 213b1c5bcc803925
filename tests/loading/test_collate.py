"""Batches: shapes, padding, origin, and rows that cannot be used."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers_for_tests import bare_tokenizer, llama3_tokenizer, mistral_tokenizer, qwen_tokenizer
from torch.utils.data import DataLoader

from safemix.errors import DataError, SettingsError
from safemix.loading.collate import Origin, SafeMixCollator, take_origin
from safemix.loading.encode import IGNORE, Encoder

ROWS = [
    {
        "messages": [
            {"role": "user", "content": "Tom has 3 apples and buys 4. How many?"},
            {"role": "assistant", "content": "He has seven."},
        ],
        "source": 0,
        "row": 12,
    },
    {"prompt": "How do I pick a lock?", "completion": "I cannot help.", "source": 1, "row": 3},
    {"instruction": "Answer", "input": "A or B?", "output": "B", "source": 2, "row": 0},
]


def test_shapes_padding_and_origin():
    tokenizer = qwen_tokenizer()
    batch = SafeMixCollator(tokenizer, template="chatml", pad_to_multiple_of=16)(ROWS)
    assert set(batch) == {"input_ids", "attention_mask", "labels", "source", "row"}
    width = batch["input_ids"].shape[1]
    assert width % 16 == 0
    for name in ("input_ids", "attention_mask", "labels"):
        assert batch[name].shape == (3, width) and batch[name].dtype == torch.int64
    assert batch["source"].tolist() == [0, 1, 2] and batch["source"].dtype == torch.int64
    assert batch["row"].tolist() == [12, 3, 0] and batch["row"].dtype == torch.int64
    encoded = Encoder(tokenizer, template="chatml").encode(ROWS[0]["messages"])
    n = len(encoded.input_ids)
    assert batch["input_ids"][0, :n].tolist() == encoded.input_ids
    assert batch["labels"][0, :n].tolist() == encoded.labels
    assert batch["attention_mask"][0].tolist() == [1] * n + [0] * (width - n)
    assert (batch["input_ids"][0, n:] == tokenizer.pad_token_id).all()
    assert (batch["labels"][0, n:] == IGNORE).all()


def test_every_shape_of_row_takes_the_same_path():
    tokenizer = qwen_tokenizer()
    collator = SafeMixCollator(tokenizer, template="chatml")
    chat = [
        {"role": "user", "content": "How do I pick a lock?"},
        {"role": "assistant", "content": "I cannot help."},
    ]
    ready = Encoder(tokenizer, template="chatml").encode(chat)
    shapes = [
        {"messages": chat},
        {"prompt": chat[0]["content"], "completion": chat[1]["content"]},
        {"instruction": chat[0]["content"], "output": chat[1]["content"]},
        {"input_ids": ready.input_ids, "labels": ready.labels},
        {"input_ids": np.array(ready.input_ids), "labels": torch.tensor(ready.labels)},
    ]
    batch = collator(shapes)
    for name in ("input_ids", "labels", "attention_mask"):
        assert (batch[name] == batch[name][0]).all()
    assert batch["source"].tolist() == [0] * 5
    assert batch["row"].tolist() == [-1] * 5


def test_take_origin():
    batch = SafeMixCollator(qwen_tokenizer(), template="chatml")(ROWS)
    origin = take_origin(batch)
    assert isinstance(origin, Origin)
    assert origin.source.tolist() == [0, 1, 2] and origin.row.tolist() == [12, 3, 0]
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    with pytest.raises(DataError, match="SafeMixCollator"):
        take_origin(batch)


def test_own_keys_for_the_origin():
    collator = SafeMixCollator(
        qwen_tokenizer(), template="chatml", source_key="from", row_key="number"
    )
    batch = collator([{**ROWS[0], "from": 5, "number": 7}])
    assert (batch["source"].item(), batch["row"].item()) == (5, 7)


def test_pad_to_max():
    collator = SafeMixCollator(
        qwen_tokenizer(), template="chatml", max_length=50, pad_to_multiple_of=8, pad_to_max=True
    )
    assert collator(ROWS[:1])["input_ids"].shape == (1, 56)


@pytest.mark.parametrize(
    ("make", "pad"),
    [
        (qwen_tokenizer, "<|endoftext|>"),
        (bare_tokenizer, "<|endoftext|>"),
        (mistral_tokenizer, "</s>"),
        (llama3_tokenizer, "<|eot_id|>"),
    ],
)
def test_padding_without_a_pad_token(make, pad):
    tokenizer = make()
    size = len(tokenizer)
    batch = SafeMixCollator(tokenizer, pad_to_multiple_of=64)(ROWS)
    assert batch["input_ids"][0, -1].item() == tokenizer.convert_tokens_to_ids(pad)
    assert batch["attention_mask"][0, -1].item() == 0
    assert batch["labels"][0, -1].item() == IGNORE
    # The end-of-turn token of a row stays trained although it pads as well.
    real = batch["attention_mask"].bool()
    assert (batch["labels"][real] != IGNORE).any()
    assert len(tokenizer) == size


def test_an_end_of_turn_that_pads_is_still_trained():
    tokenizer = bare_tokenizer()
    batch = SafeMixCollator(tokenizer)(ROWS)
    for labels in batch["labels"]:
        assert (labels == tokenizer.eos_token_id).sum() == 1


def test_unknown_token_pads_where_there_is_no_other():
    tokenizer = mistral_tokenizer()
    tokenizer.eos_token = None
    assert SafeMixCollator(tokenizer).pad_token_id == tokenizer.unk_token_id


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"input_ids": [1, 2], "labels": [-100, -100]}, "no trained token"),
        ({"input_ids": [1, 2], "labels": [1, -100]}, "no trained token"),
        ({"input_ids": [1, 2], "labels": [1]}, "no equal lists"),
        ({"input_ids": [1, 2]}, "no equal lists"),
        ({"input_ids": [1] * 60, "labels": [1] * 60}, "60 tokens are over max_length 50"),
        ({"prompt": "Tom?", "completion": " "}, "answer"),
        ({"text": "Tom"}, "source 4, row 9"),
        ({"messages": [{"role": "user", "content": "Tom?"}]}, "no answer"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(row, problem):
    collator = SafeMixCollator(qwen_tokenizer(), template="chatml", max_length=50)
    with pytest.raises(DataError, match=problem) as caught:
        collator([ROWS[1], {**row, "source": 4, "row": 9}])
    assert "source 4, row 9" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_over_long_rows():
    long = {"prompt": "Tom has 3 apples. " * 50, "completion": "B", "source": 1, "row": 2}
    cut = SafeMixCollator(qwen_tokenizer(), template="chatml", max_length=40)([long])
    assert cut["attention_mask"].sum() == 40
    refuse = SafeMixCollator(qwen_tokenizer(), template="chatml", max_length=40, overlong="drop")
    with pytest.raises(DataError, match="source 1, row 2: longer than max_length 40"):
        refuse([long])


def test_arguments_and_empty_batch():
    with pytest.raises(SettingsError, match="pad_to_multiple_of 0"):
        SafeMixCollator(qwen_tokenizer(), pad_to_multiple_of=0)
    with pytest.raises(DataError, match="no rows"):
        SafeMixCollator(qwen_tokenizer())([])


def test_pickles_and_gives_the_same_batch():
    collator = SafeMixCollator(qwen_tokenizer(), template="chatml")
    first = collator(ROWS)
    copy = pickle.loads(pickle.dumps(collator))
    for batch in (collator(ROWS), copy(ROWS)):
        assert all(torch.equal(first[name], batch[name]) for name in first)


WORKERS = """
import sys
sys.path.insert(0, {here!r})
from tokenizers_for_tests import qwen_tokenizer
from torch.utils.data import DataLoader
from safemix.loading.collate import SafeMixCollator

if __name__ == "__main__":
    rows = [{{"prompt": "Tom has " * n, "completion": "B", "row": n}} for n in range(1, 9)]
    collator = SafeMixCollator(qwen_tokenizer(), template="chatml")
    alone = [collator(rows[n : n + 4]) for n in (0, 4)]
    loader = DataLoader(rows, batch_size=4, collate_fn=collator, num_workers=2,
                        multiprocessing_context={context!r})
    for mine, theirs in zip(alone, loader, strict=True):
        assert all((mine[k] == theirs[k]).all() for k in mine), mine
    print("same")
"""


@pytest.mark.parametrize("context", ["spawn", "fork"])
def test_in_loader_workers(context, tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS.format(here=str(Path(__file__).parent), context=context))
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "same\n", done.stderr
    assert "parallelism" not in done.stderr


def test_in_a_loader():
    loader = DataLoader(ROWS, batch_size=2, collate_fn=SafeMixCollator(qwen_tokenizer()))
    assert [batch["row"].tolist() for batch in loader] == [[12, 3], [0]]
