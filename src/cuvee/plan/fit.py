"""Whether the inputs of a merge fit together by names and shapes; what a person can do where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cuvee.architecture.layers import role
from cuvee.core import CuveeError
from cuvee.plan.matching import Matched

if TYPE_CHECKING:
    from cuvee.plan.merge import Merge

SHOWN = 5
"""Tensors that an error lists before it says how many more there are."""

LEAST_SHARE = 0.1
"""Share of the merge's tensors that a model must have, whatever `missing` says."""

LARGE_SHARE = 0.5
"""Share from which taking the rest from the base is a remedy worth naming."""


def check_tensors(merge: Merge) -> None:
    """Every tensor in every model, with one shape. Raises CuveeError that tells all misfits at once."""
    names = [name for name in merge.names() if merge.merged(name)]
    models = list({id(each): each for each in merge.models}.values())
    missing = {id(each): [name for name in names if name not in each] for each in models}
    for each in models:
        _check_share(merge, each, names, missing[id(each)])
    taken = merge.recipe.missing == "base" and merge.base is not None
    if any(missing.values()) and not taken:
        lines = [_missing_line(each.label, missing[id(each)]) for each in models if missing[id(each)]]
        raise CuveeError("\n  ".join(lines) + _missing_hint(merge, names, missing))
    misfits = {name: told for name in names if (told := _misfit(merge, name))}
    if misfits:
        count = f"{len(misfits)} tensors differ" if len(misfits) > 1 else "1 tensor differs"
        first = next(iter(misfits))
        raise CuveeError(f"{count} in shape or kind, first {first}: {misfits[first]}{_misfit_hint(merge, misfits)}")


def _check_share(merge: Merge, each: Matched, names: list[str], missing: list[str]) -> None:
    """Raises CuveeError for a model that has next to nothing of the merge."""
    have = len(names) - len(missing)
    if each is merge.base or not names or (have and have >= LEAST_SHARE * len(names)):
        return
    shared = f"{have} of the {len(names)}" if have else "none of the"
    told = f"{each.label} has {shared} tensors that are merged: it is no model of this architecture, or another file."
    theirs = list(each.given.names())[:SHOWN]
    told += f"\n  It has {', '.join(theirs)}; the merge has {', '.join(names[:SHOWN])}."
    if each.renaming.doubts:
        told += f"\n  {'; '.join(each.renaming.doubts)}: save the one to merge alone."
    kinds = [each.given.config().get("model_type"), merge.reference.config().get("model_type")]
    if all(kinds) and kinds[0] != kinds[1]:
        told += f"\n  Its model_type is {kinds[0]}, that of {merge.reference.label} is {kinds[1]}."
    raise CuveeError(told)


def _missing_line(label: str, names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"{label} lacks {len(names)} tensor{'s' if len(names) > 1 else ''}: {shown}"


def _missing_hint(merge: Merge, names: list[str], missing: dict[int, list[str]]) -> str:
    """The way on, where there is one that gives what was meant."""
    stacked = [each.label for each in merge.models if _stacks_experts(each, missing[id(each)])]
    if stacked:
        return (
            f"\n  Of {stacked[0]} and {merge.reference.label}, one stores experts one by one, the other stacked as "
            "transformers holds them in memory: load that one there and save it anew with save_pretrained."
        )
    most = max(map(len, missing.values()))
    if len(names) - most < LARGE_SHARE * len(names):
        return "\n  Are these fine-tunes of one model?"
    if merge.base is None:
        return (
            f"\n  {merge.method.name} has no base here to take them from. task_arithmetic and slerp, with "
            f"base_model (--base) and  missing: base , take them there."
        )
    return "\n  Add  missing: base  to the recipe (--missing base) to take the base's tensors there."


def _stacks_experts(each: Matched, missing: list[str]) -> bool:
    """Whether a model holds in single tensors, one axis more, what the merge has expert by expert, or the other way."""
    extra = [name for name in each.extra if "experts" in name]
    indices = [
        {sum(part.isdigit() for part in name.split(".")) for name in names if "experts" in name}
        for names in (missing, extra)
    ]
    return bool(indices[0] and indices[1]) and indices[0].isdisjoint(indices[1])


def _misfit(merge: Merge, name: str) -> str:
    first = merge.first(name)
    wanted = first.spec(name)
    for each in merge.inputs:
        if name in each:
            spec = each.spec(name)
            if spec.shape != wanted.shape or not spec.dtype.is_floating_point:
                return f"{wanted} in {first.label}, {spec} in {each.label}"
    return ""


def _misfit_hint(merge: Merge, misfits: dict[str, str]) -> str:
    """What the differing tensors are, and what can be done about them."""
    if any(role(name) in ("embedding", "head") for name in misfits):
        return (
            "\n  The vocabularies differ: were tokens added? Resize the embeddings to one tokenizer first, "
            "or leave them to one model: leave: {filter: NAME, from: MODEL}."
        )
    modules = list(dict.fromkeys(name.split(".")[0] for name in misfits))
    whole = [m for m in modules if not any(n.startswith(f"{m}.") and n not in misfits for n in merge.names())]
    if len(whole) < len(modules):
        return ""
    source = "base" if merge.base else merge.models[0].label
    rules = [f"{{filter: {module}, from: {source}}}" for module in modules]
    rule = rules[0] if len(rules) == 1 else f"[{', '.join(rules)}]"
    return f"\n  Are these heads for different tasks? Add  leave: {rule}  to keep those of one model."
