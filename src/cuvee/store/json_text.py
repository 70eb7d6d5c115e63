"""JSON of others to plain data: bounded in depth, values and digits, and nothing that is no text."""

from __future__ import annotations

import json
import re
from typing import Any

from cuvee import limits

_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape of one half of a character: both halves together are one, alone they are no text."""
_DEEP = f"it is nested deeper than {limits.DEPTH} levels"


def parse_json(text: str | bytes) -> Any:
    """The data of a JSON text, UTF-8 where it is bytes. Raises ValueError that says what is wrong with it."""
    data = loads(text, parse_int=_whole)
    _check_depth(data)
    return data


def loads(text: str | bytes, **hooks: Any) -> Any:
    """The same with the hooks of `json.loads`, of any depth that Python can read, and numbers of any size."""
    text = text if isinstance(text, str) else text.decode("utf-8")
    if (text.count(",") + text.count("[") + text.count("{")) > limits.JSON_VALUES:
        raise ValueError(f"it holds more than {limits.JSON_VALUES:,} values")
    try:
        data = json.loads(text, **hooks)
        if _HALF.search(text):
            json.dumps(data, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(_DEEP) from None
    except UnicodeEncodeError:
        raise ValueError("a text in it holds half a character") from None
    return data


def _whole(digits: str) -> int:
    if len(digits) > limits.DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits")
    return int(digits)


def _check_depth(data: Any) -> None:
    level = [data]
    for _ in range(limits.DEPTH):
        level = [each for held in level for each in _inside(held) if isinstance(each, (dict, list))]
        if not level:
            return
    raise ValueError(_DEEP)


def _inside(held: Any) -> Any:
    return held.values() if isinstance(held, dict) else held if isinstance(held, list) else ()
