"""The card of an adapter that is made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from jinja2 import Environment

from cuvee.structures.adapters.planning import AdapterPlan
from cuvee.text import fence, in_markdown

_CARD = """---
{{ front }}---
# {{ title }}

A merge made with [cuvee](https://pypi.org/project/cuvee/) {{ version }}: a LoRA adapter that `peft` loads.

* **{{ method.name }}** ({{ method.paper }}): {{ method.summary }}
{%- if error is not none %}
* Relative error of the merged update, in the Frobenius norm: {{ "%.3g"|format(error) }}
{%- endif %}

## Adapters

{% for label in labels -%}
* {{ label | plain }}
{% endfor %}
## Recipe

{{ fence }}yaml
{{ recipe }}{{ fence }}
"""


def adapter_card(plan: AdapterPlan, errors: Mapping[str, Any] | None) -> str:
    """README.md of a merge of adapters."""
    from cuvee import __version__

    base = plan.adapter_config.get("base_model_name_or_path")
    recipe = plan.recipe.to_yaml()
    environment = Environment(autoescape=False)
    environment.filters["plain"] = in_markdown
    return environment.from_string(_CARD).render(
        front=front_matter(["lora", "merge", "cuvee"], base),
        title=f"Merge of {len(plan.checkpoints)} adapters by {plan.recipe.merge_method}",
        version=__version__,
        method=plan.method,
        error=errors["all"] if errors else None,
        labels=[checkpoint.label for checkpoint in plan.checkpoints],
        recipe=recipe,
        fence=fence(recipe),
    )


def front_matter(tags: list[str], base: str | None) -> str:
    """What the Hub reads of an adapter's card; the base where it is on the Hub."""
    front: dict[str, Any] = {"library_name": "peft", "tags": tags}
    if base and base.count("/") == 1 and not base.startswith((".", "/", "~")):
        front["base_model"] = base
    return str(yaml.safe_dump(front, sort_keys=False))
