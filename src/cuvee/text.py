"""Text of others as it may be printed."""

from __future__ import annotations

import re

HALVES = "\ud800-\udfff"
"""Halves of characters, which no encoding takes alone."""

UNSEEN = re.compile(f"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069{HALVES}]")
"""Characters that steer a terminal, break a line, turn the direction of text, or are half of one."""


_MARKS = re.compile(r"^[#+=-]|[\\`*\[\]<>&|!]|~~|://|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown and HTML take for more than text; an underline within a word, as names have, is none."""


def shown(text: object) -> str:
    """A text with escapes, such as `\\x1b`, for what would not be seen."""
    return UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def in_markdown(text: object) -> str:
    """A text where it stands for itself in Markdown: no mark-up, no HTML, no line of its own."""
    return _MARKS.sub(r"\\\g<0>", shown(text))


def fence(text: str) -> str:
    """What encloses a text as code in Markdown: longer than any such row in it."""
    return "`" * max([3, *(len(row) + 1 for row in re.findall("`+", text))])
