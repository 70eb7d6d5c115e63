"""Tokenizers of a merge: rows of embeddings that the models do not share, and what `tokenizer:` asks for."""

from __future__ import annotations

from collections.abc import Iterable

from cuvee.plan.inputs import Stored
from cuvee.plan.matching import Matched
from cuvee.recipe import Fault, Recipe, RecipeError
from cuvee.store.tokens import Vocabulary, compare, vocabulary

SHOWN = 3
"""Tokens that a message lists."""


def fit_rows(reference: Matched, others: Iterable[Matched], recipe: Recipe) -> list[str]:
    """Give embeddings and heads of the other models as many rows as the reference's, where that loses no token: the
    rows in excess or lacking are padding, or belong to tokens that `tokenizer: {source: base}` drops.

    Returns a notice for each model that was changed. What does not fit is left as it is.
    """
    notices = []
    for other in others:
        if not isinstance(other.given, Stored) or not isinstance(reference.given, Stored):
            continue
        fillers = _differing(reference, other)
        if not fillers:
            continue
        own, theirs = _vocabulary(reference), _vocabulary(other)
        found = compare(own, theirs) if own and theirs else None
        if own is None or found is None:
            continue
        rows = [
            (reference.given.spec(filler).shape[0], other.given.spec(name).shape[0]) for name, filler in fillers.items()
        ]
        counts = [count for pair in rows for count in pair]
        padding = found.equal and own.rows <= min(counts)
        dropped = recipe.tokenizer is not None and not (found.moved or found.replaced or found.fewer)
        if padding or (dropped and own.rows <= min(counts)):
            told = "the tokenizers are equal" if padding else f"tokens that {reference.label} has not are dropped"
            other.given.resize(reference.given.checkpoint, fillers)
            wanted, had = rows[0]
            notices.append(f"{other.label}: its embedding of {had} rows is taken for one of {wanted}: {told}")
    return notices


def check_tokenizer(recipe: Recipe, reference: Matched, others: Iterable[Matched]) -> None:
    """Raises RecipeError where `tokenizer:` asks for more than the reference's and the tokenizers differ."""
    source = (recipe.tokenizer or {}).get("source", "base")
    if source == "base":
        return
    own = _vocabulary(reference)
    for other in others:
        theirs = _vocabulary(other)
        if source != "union" and other.label != source:
            continue
        found = compare(own, theirs) if own and theirs else None
        if (own is None and theirs is None) or (found is not None and found.equal):
            continue
        more = found.more if found else []
        shown = f": {other.label} has {len(more)} more ({', '.join(more[:SHOWN])})" if more else ""
        message = f"tokenizer: {source} of tokenizers that differ is not supported yet{shown}."
        fault = Fault(("tokenizer", "source"), message, "source: base keeps the base's tokens")
        raise RecipeError(recipe.settled([fault]))


def _vocabulary(each: Matched) -> Vocabulary | None:
    return vocabulary(each.given.checkpoint.folder) if isinstance(each.given, Stored) else None


def _differing(reference: Matched, other: Matched) -> dict[str, str]:
    """The other's tensors outside layers whose shape differs in the first axis alone -> the reference's."""
    found = {}
    for wanted, name in other.renaming.names.items():
        if any(part.isdigit() for part in wanted.split(".")) or wanted not in reference.held:
            continue
        own, theirs = reference.given.spec(reference.held[wanted]).shape, other.given.spec(name).shape
        if own != theirs and len(own) == len(theirs) > 0 and own[1:] == theirs[1:]:
            found[name] = reference.held[wanted]
    return found
