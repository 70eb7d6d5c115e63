"""The card of an adapter that is made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment

from cuvee.structures.adapters.planning import AdapterPlan

_CARD = """---
library_name: peft
tags:
- lora
- merge
- cuvee
{%- if base %}
base_model: {{ base }}
{%- endif %}
---
# {{ title }}

A merge made with [cuvee](https://pypi.org/project/cuvee/) {{ version }}: a LoRA adapter that `peft` loads.

* **{{ method.name }}** ({{ method.paper }}): {{ method.summary }}
{%- if error is not none %}
* Relative error of the merged update, in the Frobenius norm: {{ "%.3g"|format(error) }}
{%- endif %}

## Adapters

{% for label in labels -%}
* {{ label }}
{% endfor %}
## Recipe

```yaml
{{ recipe }}```
"""


def adapter_card(plan: AdapterPlan, errors: Mapping[str, Any] | None) -> str:
    """README.md of a merge of adapters."""
    from cuvee import __version__

    base = plan.adapter_config.get("base_model_name_or_path")
    return (
        Environment(autoescape=False)
        .from_string(_CARD)
        .render(
            title=f"Merge of {len(plan.checkpoints)} adapters by {plan.recipe.merge_method}",
            version=__version__,
            base=base if base and base.count("/") == 1 and not base.startswith((".", "/", "~")) else None,
            method=plan.method,
            error=errors["all"] if errors else None,
            labels=[checkpoint.label for checkpoint in plan.checkpoints],
            recipe=plan.recipe.to_yaml(),
        )
    )
