"""Text of others as it may be printed."""

from __future__ import annotations

import re

HALVES = "\ud800-\udfff"
"""Halves of characters, which no encoding takes alone."""

UNSEEN = re.compile(f"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069{HALVES}]")
"""Characters that steer a terminal, break a line, turn the direction of text, or are half of one."""


def shown(text: object) -> str:
    """A text with escapes, such as `\\x1b`, for what would not be seen."""
    return UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))
