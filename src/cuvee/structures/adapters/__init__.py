"""Adapters as outputs: merges of LoRA adapters, and adapters taken out of models. No base is loaded to merge."""

from __future__ import annotations

from cuvee.structures.adapters.extracting import Extracted, extract
from cuvee.structures.adapters.merged import MergedAdapter
from cuvee.structures.adapters.planning import AdapterPlan, plan_adapters
from cuvee.structures.adapters.writing import AdapterOutcome, run

__all__ = ["AdapterOutcome", "AdapterPlan", "Extracted", "MergedAdapter", "extract", "plan_adapters", "run"]
