"""What shapes do not show: token order, attention heads, labels, rope; the reference is the measure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import isclose
from typing import Any, NamedTuple

from cuvee.core import Checkpoint, CuveeError
from cuvee.store.tokens import Comparison, compare, vocabulary

SHOWN = 3
"""Tokens or labels that a message lists."""

CLASH = 0.01
"""Share of the ids beyond which other tokens under the same ids are another vocabulary, not a few tokens that were
added for a task."""

_HEADS = re.compile(r"(^|_)n?_?(heads?|nheads?)(_dim|_size|$)|^multi_query$|^new_decoder_architecture$")
_NOTED = re.compile(
    r"^model_type$|rope|rotary|theta|eps$|epsilon|(^|_)act(ivation)?(_|$)|hidden_act|sliding_window|multiplier|softcap"
    r"|(bos|eos|pad|cls|sep|mask|unk|decoder_start|image|video|audio)_token_(id|index)$|alibi|layer_norm"
)
_SKIPPED = re.compile(r"^(id2label|label2id|_name_or_path|architectures|transformers_version)$|dropout|initializer")
_DEFAULT_LABEL = re.compile(r"LABEL_\d+")
_UNSAID = "default"


class Difference(NamedTuple):
    """A difference between two models that their shapes do not show."""

    check: str  # the name that `allow` knows it by; empty where it is only told
    text: str


def check_alike(
    reference: Checkpoint, others: Sequence[Checkpoint], allowed: Collection[str], *, words: bool, classes: bool
) -> list[str]:
    """Notices of what may be meant. Raises CuveeError for a difference that makes noise of a merge, unless it is
    allowed.

    words: whether tensors over the vocabulary are merged; classes: whether a head over labels is.
    """
    notices = []
    for other in others:
        for found in differences(reference, other):
            if (found.check == "token_order" and not words) or (found.check == "labels" and not classes):
                continue
            if found.check and found.check not in allowed:
                raise CuveeError(
                    f"{found.text}\n  A merge of the two would be noise. To go on all the same: --allow {found.check} "
                    f"(in a recipe  allow: [{found.check}] )."
                )
            notices.append(found.text)
    return notices


def differences(one: Checkpoint, other: Checkpoint) -> Iterator[Difference]:
    """All differences of the second from the first."""
    labels = f"{one.label} and {other.label}"
    if one.folder is not None and other.folder is not None and one.folder.resolve() != other.folder.resolve():
        yield from _tokens(one, other)
    first, second = _flat(one.config()), _flat(other.config())
    for key in first.keys() & second.keys():
        a, b = first[key], second[key]
        leaf = key.rpartition(".")[2]
        if _alike(a, b) or _SKIPPED.search(leaf):
            continue
        if _HEADS.search(leaf) and isinstance(a, (int, list)) and isinstance(b, (int, list)):
            yield Difference("heads", f"{labels} differ in {key}: {a} and {b}.")
        elif _NOTED.search(leaf) or leaf.startswith("rope") or "rope" in key:
            yield Difference("", f"{labels} differ in {key}: {a} and {b}; the merge has {a}")
    yield from _labels(one, other)


def _tokens(one: Checkpoint, other: Checkpoint) -> Iterator[Difference]:
    first, second = vocabulary(one.folder), vocabulary(other.folder)
    if first is None or second is None:
        return
    found = compare(first, second)
    if found is None:
        yield Difference("", f"{other.label}: its tokenizer could not be compared with that of {one.label}")
    elif found.moved or len(found.replaced) > CLASH * max(1, len(first.ids)):
        yield Difference("token_order", f"{other.label} numbers tokens otherwise than {one.label}: {_told(found)}.")
    elif found.replaced:
        yield Difference("", f"{other.label} has other tokens than {one.label} in some rows: {_told(found)}")


def _told(found: Comparison) -> str:
    if found.moved:
        shown = [f"{token!r} is {a} and {b}" for token, (a, b) in list(found.moved.items())[:SHOWN]]
        count = len(found.moved)
    else:
        shown = [f"{place} is {a!r} and {b!r}" for place, (a, b) in list(found.replaced.items())[:SHOWN]]
        count = len(found.replaced)
    return ", ".join(shown) + (f", and {count - SHOWN} more" if count > SHOWN else "")


def _labels(one: Checkpoint, other: Checkpoint) -> Iterator[Difference]:
    """Classes in another order, or of other names."""
    first, second = ({str(k): str(v) for k, v in (c.config().get("id2label") or {}).items()} for c in (one, other))
    if first == second or len(first) != len(second) or not first:
        return
    shown = "; ".join(f"{place} is {first[place]} and {second.get(place)}" for place in list(first)[:SHOWN])
    told = f"{one.label} and {other.label} differ in their classes: {shown}"
    if sorted(first.values()) == sorted(second.values()):
        yield Difference("labels", f"{told}.")
    elif not any(_DEFAULT_LABEL.fullmatch(label) for label in (*first.values(), *second.values())):
        yield Difference("", told)


def model_types(config: Mapping[str, Any]) -> Iterator[str]:
    """The kinds of a model and of its parts, by transformers' names."""
    for key, value in config.items():
        if key == "model_type" and isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from model_types(value)


def _flat(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A config by dotted keys, with rope settings as transformers 4 and 5 write them under one name."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        at = f"{path}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{path}rope_scaling." if key == "rope_parameters" else f"{at}.")
        elif value is not None:
            found[at] = value
    for old, new in (("rope_scaling.type", "rope_scaling.rope_type"), ("rope_scaling.rope_theta", "rope_theta")):
        if path + old in found:
            found.setdefault(path + new, found.pop(path + old))
    if {"rope_scaling", "rope_theta", "rope_parameters"} & config.keys():
        found.setdefault(f"{path}rope_scaling.rope_type", _UNSAID)
    return found


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        both = isinstance(a, (int, float)) and isinstance(b, (int, float))
        return both and isclose(a, b, rel_tol=1e-9)
    if isinstance(a, list) != isinstance(b, list):
        return [a] == b if isinstance(b, list) else a == [b]
    equal: bool = a == b
    return equal
