"""Chat templates by name, and the choice of one for a tokenizer.

A template is Jinja text, as in `tokenizer.chat_template`. The ones here are short: system, user
and assistant turns, nothing else. A row's text reaches them as data and is never rendered.
"""

from __future__ import annotations

from typing import Any

from safemix.errors import ModelError

_LLAMA3 = (
    "{{ '<|begin_of_text|>' }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)

_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_QWEN = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. "
    "You are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
) + _CHATML

# Mistral and Gemma have no system turn. It goes before the first user text, so that what stands
# before an answer in training is what stands there when the model is asked.
_FOLD_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] | trim + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{{ bos_token }}"
    "{% for message in turns %}"
    "{% if message['role'] not in ('user', 'assistant') "
    "or (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('turns must go user, assistant, user, ... after one system prompt') }}"
    "{% endif %}"
)

_MISTRAL = _FOLD_SYSTEM + (
    "{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + (system if loop.first else '') + message['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}"
    "{% endfor %}"
)

_GEMMA = _FOLD_SYSTEM + (
    "{{ '<start_of_turn>' + ('user' if message['role'] == 'user' else 'model') + '\n' }}"
    "{{ (system if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

_PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '### Response:\n' + message['content'] + eos_token }}"
    "{% else %}"
    "{% if not loop.first and messages[loop.index0 - 1]['role'] == 'assistant' %}"
    "{{ '\n\n' }}"
    "{% endif %}"
    "{{ '### Instruction:\n' if message['role'] == 'user' else '' }}"
    "{{ message['content'] + '\n\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)

TEMPLATES: dict[str, str] = {
    "llama3": _LLAMA3,
    "chatml": _CHATML,
    "mistral": _MISTRAL,
    "qwen": _QWEN,
    "gemma": _GEMMA,
    "plain": _PLAIN,
}

# What a named template writes as control tokens; "bos" and "eos" are the tokenizer's own.
_CONTROL: dict[str, tuple[str, ...]] = {
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "mistral": ("bos", "[INST]", "[/INST]", "eos"),
    "qwen": ("<|im_start|>", "<|im_end|>"),
    "gemma": ("bos", "<start_of_turn>", "<end_of_turn>"),
    "plain": ("eos",),
}


def choose_template(tokenizer: Any, name: str | None) -> str:
    """The chat template to use: the named one, else the tokenizer's own, else `plain`.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        name: a key of `TEMPLATES`, Jinja text of your own, or None to choose.

    Raises:
        ModelError: for an unknown name, or where the tokenizer lacks a control token that the
            named template writes.
    """
    if name is not None and ("{{" in name or "{%" in name):
        return name
    if name is None:
        if tokenizer.chat_template:
            return str(tokenizer.get_chat_template())
        name = "plain"
    if name not in TEMPLATES:
        raise ModelError(
            f"chat template {name!r} is unknown: use one of {', '.join(TEMPLATES)}, "
            "Jinja text, or leave it unset to use the tokenizer's own"
        )
    for token in _CONTROL[name]:
        _require_token(tokenizer, name, token)
    if name == "plain" and _adds_bos(tokenizer):
        return "{{ bos_token }}" + TEMPLATES[name]
    return TEMPLATES[name]


def _require_token(tokenizer: Any, template: str, token: str) -> None:
    text = {"bos": tokenizer.bos_token, "eos": tokenizer.eos_token}.get(token, token)
    if text is None:
        raise ModelError(
            f"chat template {template!r} needs a {token} token and this tokenizer has none: "
            f"set tokenizer.{token}_token or choose another chat_template"
        )
    # Only an added token is found as one inside a text, whatever stands around it.
    if text not in {added.content for added in tokenizer.added_tokens_decoder.values()}:
        raise ModelError(
            f"chat template {template!r} needs {text!r} as one token and this tokenizer has it "
            "not: choose another chat_template, or leave it unset to use the tokenizer's own"
        )


def _adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer begins ordinary text with its BOS token."""
    encoding = backend(tokenizer).encode("a")
    ids = [i for i, own in zip(encoding.ids, encoding.attention_mask, strict=True) if own]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def backend(tokenizer: Any) -> Any:
    """The `tokenizers.Tokenizer` inside a fast tokenizer.

    Raises:
        ModelError: for a tokenizer without one.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(inner, "to_str"):
        raise ModelError(
            f"tokenizer {type(tokenizer).__name__} is not a fast one, so characters cannot be "
            "matched to tokens: load it with AutoTokenizer.from_pretrained(..., use_fast=True)"
        )
    return inner
