"""What becomes of a tensor when an adapter is taken out of a model: by name and shape alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cuvee.architecture.roles import Kind, is_transposed, module_kind
from cuvee.core import TensorSpec

_TASKS = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor of the base: the module that has it, which of its parameters it is, and its kind."""

    module: str
    parameter: str
    kind: Kind  # "loose": no parameter of a layer, which PEFT cannot replace
    transposed: bool = False


def place(name: str, spec: TensorSpec, config: Mapping[str, Any]) -> Place:
    """Where a tensor belongs."""
    module, _, parameter = name.rpartition(".")
    kind = module_kind(module, parameter, spec)
    return Place(module, parameter, kind, kind == "matrix" and is_transposed(module, config))


def targets(modules: Iterable[str], others: Iterable[str]) -> list[str]:
    """Names that select these modules and none of the others: their last parts where that is enough."""
    modules = list(modules)
    short = {module.rpartition(".")[2] for module in modules}
    taken = {other.rpartition(".")[2] for other in others}
    return modules if short & taken else sorted(short)


def task(config: Mapping[str, Any]) -> str | None:
    """PEFT's name of the task that a model is built for."""
    named = (config.get("architectures") or [""])[0]
    return next((kind for ending, kind in _TASKS.items() if named.endswith(ending)), None)
