"""The model card of a merge."""

from __future__ import annotations

from typing import Any

import yaml
from jinja2 import Environment

from cuvee.plan.plan import Plan
from cuvee.plan.provenance import methods_of
from cuvee.recipe.published import published, short_reference
from cuvee.store.hub import is_hub_id
from cuvee.text import fence, in_markdown

_CARD = """---
{{ front }}---
# {{ title }}

A merge made with [cuvee](https://pypi.org/project/cuvee/) {{ version }}.

{% for method in methods -%}
* **{{ method.name }}** ({{ method.paper }}): {{ method.summary }}
{% endfor %}
## Models

{% for label in labels -%}
* {{ label | plain }}
{% endfor %}
## Recipe

{{ fence }}yaml
{{ recipe }}{{ fence }}
"""


def model_card(plan: Plan) -> str:
    """README.md of a merge: what was merged, how, and the recipe that does it again."""
    from cuvee import __version__

    labels = [short_reference(checkpoint.label) for checkpoint in plan.checkpoints]
    ids = [part for each in plan.checkpoints for part in each.label.split("+") if is_hub_id(part, plan.recipe.roots)]
    front: dict[str, Any] = {"library_name": "transformers", "tags": ["merge", "cuvee"]}
    if ids:
        front["base_model"] = list(dict.fromkeys(each.partition("@")[0] for each in ids))
    recipe = published(plan.recipe)
    environment = Environment(autoescape=False)
    environment.filters["plain"] = in_markdown
    return environment.from_string(_CARD).render(
        front=yaml.safe_dump(front, sort_keys=False),
        title=f"Merge of {len(labels)} models by {plan.recipe.merge_method}",
        version=__version__,
        methods=list(methods_of(plan.outputs).values()),
        labels=labels,
        recipe=recipe,
        fence=fence(recipe),
    )
