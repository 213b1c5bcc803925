"""Guard models by Hugging Face id or folder: chat guards, and text classifiers.

A chat guard (Llama Guard and its like) gets the row in its own chat template and writes a verdict
such as "safe" or "unsafe", then the category. A classifier has labels. No code of a model
repository is run, and weights are read from safetensors only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from safemix.errors import ModelError
from safemix.rows.schema import Message
from safemix.screening.guards import Finding, Guard

if TYPE_CHECKING:
    import torch

__all__ = ["ChatGuard", "ClassifierGuard", "load_guard_model", "parse_verdict"]

_NEW_TOKENS: Final = 24
_UNKNOWN: Final = "verdict not understood"
_SAFE: Final = re.compile(
    r"\b(?:safe|benign|non[-_ ]?(?:toxic|hate|harmful|offensive)|not[-_ ]?(?:toxic|hate\w*|harmful|"
    r"offensive|unsafe)|neutral|clean|normal|ok|okay|harmless|unharmful|nothing|none|good|no|"
    r"acceptable|label_0)\b",
    re.I,
)
# The words of a verdict, the harmful ones first: "unsafe" holds "safe".
_VERDICT: Final = re.compile(
    r"\b(?P<bad>unsafe|controversial|yes|harmful)\b|\b(?P<good>safe|no|unharmful|harmless)\b", re.I
)
_CODE: Final = re.compile(r"\b[SO]\d{1,2}\b")
_NAMED: Final = re.compile(r"categor(?:y|ies)\s*:\s*(?P<name>[^\n]+)", re.I)


def load_guard_model(name: str, device: str | None = None) -> Guard:
    """Load a guard model; its configuration tells which kind it is.

    Args:
        name: Hugging Face id or a folder.
        device: where it runs; unset: the first GPU if there is one.

    Raises:
        ModelError: if it cannot be loaded, or is no guard model.
    """
    import torch
    import transformers

    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    common: dict[str, Any] = {"trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **common)
        kinds = config.architectures or ["none named"]
        classifies = any(kind.endswith("ForSequenceClassification") for kind in kinds)
        if not classifies and not any(kind.endswith(("CausalLM", "LMHeadModel")) for kind in kinds):
            raise ModelError(
                f"guard {name}: a {kinds[0]} is neither a text classifier nor a chat model"
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **common)
        auto = (
            transformers.AutoModelForSequenceClassification
            if classifies
            else transformers.AutoModelForCausalLM
        )
        model = auto.from_pretrained(name, use_safetensors=True, dtype="auto", **common)
        model = model.to(where).eval()
    except ModelError:
        raise
    # The library raises a dozen kinds for what is missing, gated or damaged; the cause is kept.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"guard {name} cannot be loaded: {reason}") from error
    if classifies:
        return ClassifierGuard(name, model, tokenizer)
    if not tokenizer.chat_template:
        raise ModelError(f"guard {name} has no chat template: give a guard model that has one")
    return ChatGuard(name, model, tokenizer)


def parse_verdict(text: str) -> tuple[bool | None, str]:
    """Read what a chat guard wrote.

    Returns:
        (harmful, category): None where no verdict can be read, "none" where no category is named.
    """
    found = _VERDICT.search(text)
    if found is None:
        return None, "none"
    harmful = found["bad"] is not None
    named = _NAMED.search(text)
    codes = _CODE.findall(text[found.end() :])
    category = ",".join(dict.fromkeys(codes)) or (named["name"].strip() if named else "")
    return harmful, (category or "unsafe") if harmful else "none"


class ChatGuard:
    """A chat model that writes a verdict. What it writes beyond recognition counts as harmful."""

    threshold = 0.5
    batch = 8

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._controls = tuple(
            sorted({str(t) for t in tokenizer.get_added_vocab()}, key=len, reverse=True)
        )

    def score(self, rows: Sequence[Sequence[Message]]) -> list[Finding]:
        """Findings of one batch: the score is the probability of a harmful verdict."""
        import torch

        prompts = [self._prompt(row) for row in rows]
        inputs = self._tokenizer(
            prompts, return_tensors="pt", padding=True, add_special_tokens=False
        ).to(self._model.device)
        self._check_length(inputs["input_ids"].shape[1])
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                max_new_tokens=_NEW_TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                output_logits=True,
                return_dict_in_generate=True,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        written = output.sequences[:, inputs["input_ids"].shape[1] :]
        return [
            self._finding(tokens.tolist(), [step[index] for step in output.logits])
            for index, tokens in enumerate(written)
        ]

    def _finding(self, tokens: list[int], logits: list[torch.Tensor]) -> Finding:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        harmful, category = parse_verdict(text)
        if harmful is None:
            return Finding(1.0, _UNKNOWN, f"{_UNKNOWN}: {' '.join(text.split())[:60]!r}")
        sure = self._sureness(tokens, logits)
        score = sure if harmful else 1 - sure
        return Finding(round(score, 4), category, f"{self.name} says {' '.join(text.split())[:60]}")

    def _sureness(self, tokens: list[int], logits: list[torch.Tensor]) -> float:
        """Probability of the first written token that is not blank: the verdict's own."""
        for token, step in zip(tokens, logits, strict=False):
            if self._tokenizer.decode([token], skip_special_tokens=True).strip():
                return max(0.5, float(step.float().softmax(-1)[token]))
        return 1.0

    def _prompt(self, row: Sequence[Message]) -> str:
        turns = [{"role": m["role"], "content": self._plain(m["content"])} for m in row]
        # Guard templates know users and assistants only.
        if turns and turns[0]["role"] == "system":
            system = turns.pop(0)["content"]
            turns[0]["content"] = f"{system}\n\n{turns[0]['content']}"
        listed = [
            {**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns
        ]
        # Some templates want the content as a list of parts; one that does not print it is wrong.
        for form in (turns, listed):
            try:
                text = self._tokenizer.apply_chat_template(
                    form, tokenize=False, add_generation_prompt=True
                )
            except Exception:  # noqa: S112 - a template's own refusal of this form
                continue
            if all(turn["content"].strip() in text for turn in turns):
                return str(text)
        raise ModelError(f"guard {self.name}: its chat template cannot show a row's turns")

    def _plain(self, text: str) -> str:
        """Text in which no control token of the guard can be read: a row must not steer it."""
        for control in self._controls:
            if len(control) > 1 and control in text:
                text = text.replace(control, f"{control[0]} {control[1:]}")
        return text

    def _check_length(self, tokens: int) -> None:
        limit = getattr(self._model.config, "max_position_embeddings", None)
        if limit is not None and tokens + _NEW_TOKENS > limit:
            raise ModelError(
                f"guard {self.name} reads {limit} tokens and a row needs {tokens}: "
                "shorten that row, or use another guard"
            )


class ClassifierGuard:
    """A text classifier: its harmful labels' probability, the worst piece of a long row counts."""

    threshold = 0.5
    batch = 16

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        config = model.config
        labels = {int(key): str(label) for key, label in config.id2label.items()}
        self._labels = labels
        self._several = config.problem_type == "multi_label_classification" or len(labels) == 1
        self._bad = tuple(
            i for i, label in labels.items() if len(labels) == 1 or not _SAFE.search(label)
        )
        if not self._bad or (not self._several and len(self._bad) == len(labels)):
            raise ModelError(
                f"guard {name}: cannot tell which of its labels are harmful: "
                f"{', '.join(labels.values())}"
            )
        limit = min(tokenizer.model_max_length, getattr(config, "max_position_embeddings", 10**9))
        self._limit = int(min(limit, 4096))

    def score(self, rows: Sequence[Sequence[Message]]) -> list[Finding]:
        """The worst piece of each row."""
        import torch

        texts = ["\n".join(message["content"] for message in row) for row in rows]
        inputs = self._tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self._limit,
            stride=min(32, self._limit // 4),
            return_overflowing_tokens=True,
        )
        owners = inputs.pop("overflow_to_sample_mapping").tolist()
        findings = [Finding(0.0, "none", "nothing found") for _ in rows]
        for start in range(0, len(owners), self.batch):
            part = {key: v[start : start + self.batch] for key, v in inputs.items()}
            part = {key: v.to(self._model.device) for key, v in part.items()}
            with torch.inference_mode():
                logits = self._model(**part).logits.float()
            shares = logits.sigmoid() if self._several else logits.softmax(-1)
            for owner, share in zip(owners[start:], shares.tolist(), strict=False):
                worst = max(findings[owner], self._finding(share), key=lambda f: f.score)
                findings[owner] = worst
        return findings

    def _finding(self, share: list[float]) -> Finding:
        worst = max(self._bad, key=lambda i: share[i])
        # Labels that exclude each other add up; several at once do not.
        score = share[worst] if self._several else sum(share[i] for i in self._bad)
        label = self._labels[worst]
        return Finding(round(min(1.0, score), 4), label, f"{self.name} says {label}")
