"""safemix: an exact, tunable share of safety rows in every optimizer step."""

from __future__ import annotations

__version__ = "0.1.0"
