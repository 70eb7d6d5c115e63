"""The merges the demo compares, and the recipe that cuvee is given for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Merge:
    """One way to merge: a method, parameters given to every expert alike, and parameters of the merge as a whole."""

    name: str
    method: str
    each: Mapping[str, float]
    whole: Mapping[str, float] = field(default_factory=dict)
    has_base: bool = True

    def recipe(self, base: Path, experts: Sequence[Path]) -> dict[str, Any]:
        """The recipe that merges the `experts` fine-tuned from `base`."""
        recipe: dict[str, Any] = {
            "merge_method": self.method,
            "models": [{"model": str(expert), "parameters": dict(self.each)} for expert in experts],
            "parameters": dict(self.whole),
            "dtype": "float32",
        }
        if self.has_base:
            recipe["base_model"] = str(base)
        return recipe


# The coefficients were chosen once, by mean accuracy on the validation splits; the test splits were not looked at.
MERGES = (
    Merge("average", "linear", each={"weight": 1.0}, has_base=False),
    Merge("task arithmetic", "task_arithmetic", each={"weight": 0.5}),
    Merge("TIES", "ties", each={"weight": 1.0, "density": 0.2}, whole={"lambda": 1.0}),
    Merge("DARE-TIES", "dare_ties", each={"weight": 0.5, "density": 0.8}),
)
