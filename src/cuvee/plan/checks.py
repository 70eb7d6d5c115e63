"""What is checked of a merge beside names and shapes, before any data moves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cuvee.architecture.layers import split_layer
from cuvee.core import Checkpoint, CuveeError
from cuvee.plan.compare import SHOWN, check_alike, model_types
from cuvee.plan.merge import Merge
from cuvee.plan.plan import Output
from cuvee.store.lora import Adapted
from cuvee.store.memory import StateDict
from cuvee.store.rows import Resized
from cuvee.store.sidecars import carried


def check_changed(root: Merge, outputs: Iterable[Output]) -> None:
    """Raises CuveeError for a merge that leaves every tensor as the base, or the first model, has it."""
    calls = [call for output in outputs for call in output.calls]
    if any(model != call.base for call in calls for model in call.models):
        return
    labels = ", ".join(dict.fromkeys(each.label for each in root.models))
    lacking = [name for each in root.models for name in each.given.names()][:3]
    raise CuveeError(
        f"Nothing would be merged: every tensor of the output is that of {root.reference.label}, as it stands. "
        f"Nothing of {labels} fits, or all of it is left out ({', '.join(lacking)}, ...)."
    )


def check_inputs(root: Merge, reference: Checkpoint, models: Sequence[Checkpoint]) -> list[str]:
    """Notices of what a person should know of the inputs.

    Raises CuveeError for a difference between models that makes noise of a merge.
    """
    if "architecture" not in root.recipe.allow:
        _check_architecture(root, reference)
    reference, *others = dict.fromkeys(map(_unadapted, (reference, *models)))
    outside = [name for name in root.names() if root.merged(name) and not any(p.isdigit() for p in name.split("."))]
    shapes = [root.spec(name).shape for name in outside]
    labels = len(reference.config().get("id2label") or ())
    widest = max((shape[0] for shape in shapes if len(shape) == 2), default=0)
    notices = check_alike(
        reference,
        others,
        root.recipe.allow,
        words=bool(widest),
        classes=any(root.spec(name).shape[:1] == (labels,) for name in root.names() if root.merged(name)),
    )
    return notices + _told_of_files(reference)


def _check_architecture(root: Merge, reference: Checkpoint) -> None:
    """Raises CuveeError for a model of another kind, whose layers are of other tensors than the reference's."""
    stacks = {split_layer(name)[0] for name in root.names() if split_layer(name)[1] is not None}
    one = set(model_types(reference.config()))
    for each in root.inputs:
        other = set(model_types(each.given.config()))
        lacking = [name for name in root.names() if root.merged(name) and name not in each]
        differing = [name for name in (*each.extra, *lacking) if split_layer(name)[0] in stacks]
        if one and other and not one & other and differing:
            raise CuveeError(
                f"{each.label} is of the kind {', '.join(sorted(other))}, {reference.label} {', '.join(sorted(one))}: "
                f"their layers differ ({', '.join(differing[:SHOWN])}).\n  A merge of the two would be noise. "
                "To go on all the same: --allow architecture (in a recipe  allow: [architecture] )."
            )


def _told_of_files(donor: Checkpoint) -> list[str]:
    """What comes along beside the weights, and what does not."""
    folder = donor.folder
    if folder is None or not donor.config():
        told = f"{donor.label} has no config.json, nor will the merge: what loads it must know its architecture"
        return [] if isinstance(donor, StateDict) else [told]
    code = [name for name in carried(folder) if Path(name).suffix == ".py"]
    return [f"custom code comes along from {donor.label}, unread: {', '.join(code)}"] if code else []


def _unadapted(checkpoint: Checkpoint) -> Checkpoint:
    """The model whose config and tokenizer count: an adapter's base."""
    while isinstance(checkpoint, (Adapted, Resized)):
        checkpoint = checkpoint.base if isinstance(checkpoint, Adapted) else checkpoint.checkpoint
    return checkpoint
