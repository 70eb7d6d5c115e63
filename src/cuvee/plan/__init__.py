"""What work a merge is: pure data from headers alone, before any tensor is read."""

from cuvee.plan.build import build
from cuvee.plan.plan import Output, Plan, Shard

__all__ = ["Output", "Plan", "Shard", "build"]
