"""How a model is asked: which one, where, how fast, how long, at what price."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from safemix.errors import SettingsError

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class LlmOptions:
    """How a model is asked.

    The key itself is no part of the options: it is read from the environment when it is needed,
    so that it is in no repr, log, cache or settings file.

    Attributes:
        model: name that the server knows, or a local folder or Hub name for `hf`.
        backend: "openai" for any server that speaks the OpenAI protocol, "hf" for a model that is
            run here with transformers.
        base_url: of the server, such as http://localhost:8000/v1; None takes OPENAI_BASE_URL, or
            OpenAI's own.
        api_key_env: name of the environment variable that holds the key.
        concurrency: questions under way at once; for `hf` the batch size.
        timeout_s: longest wait for one response, in seconds.
        max_retries: askings after the first that fails for a passing reason (429, 5xx, timeout,
            lost connection).
        temperature: 0 takes the likeliest token; `hf` knows no other.
        max_tokens: longest answer, in tokens.
        price_in: of a million tokens read; None if not known.
        price_out: of a million tokens written; None if not known.
        cache: folder for the answers; None takes `llm` in SAFEMIX_CACHE, or in `safemix` in the XDG
            cache folder.
    """

    model: str
    backend: Literal["openai", "hf"] = "openai"
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 8
    timeout_s: float = 120.0
    max_retries: int = 6
    temperature: float = 0.0
    max_tokens: int = 1024
    price_in: float | None = None
    price_out: float | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        if not self.model:
            raise SettingsError("llm: no model: give the name that the server knows, or a folder")
        if self.backend not in ("openai", "hf"):
            raise SettingsError(f"llm: unknown backend {self.backend!r}, legal are openai, hf")
        if not _VARIABLE.fullmatch(self.api_key_env):
            # A key that was put there by mistake is not repeated.
            raise SettingsError(
                "llm: api_key_env is no name: give that of an environment variable, not what it "
                "holds"
            )
        for name, low in (("concurrency", 1), ("max_tokens", 1), ("max_retries", 0)):
            if getattr(self, name) < low:
                raise SettingsError(f"llm: {name} is {getattr(self, name)}, must be {low} or more")
        if self.timeout_s <= 0:
            raise SettingsError(f"llm: timeout_s is {self.timeout_s}, must be above 0")
        if self.temperature < 0 or (self.backend == "hf" and self.temperature):
            legal = "0 for a local model" if self.backend == "hf" else "0 or more"
            raise SettingsError(f"llm: temperature is {self.temperature}, must be {legal}")
        if (self.price_in is None) != (self.price_out is None):
            raise SettingsError("llm: give both price_in and price_out, or neither")

    @property
    def cache_folder(self) -> Path:
        """Where the answers are kept."""
        if self.cache is not None:
            return Path(self.cache).expanduser()
        given, xdg = os.environ.get("SAFEMIX_CACHE"), os.environ.get("XDG_CACHE_HOME")
        if given:
            return Path(given).expanduser() / "llm"
        return (Path(xdg) if xdg else Path.home() / ".cache") / "safemix" / "llm"

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        """Price of these tokens; None if prices are not known."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6
