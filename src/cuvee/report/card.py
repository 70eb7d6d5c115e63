"""The model card of a merge."""

from __future__ import annotations

from jinja2 import Environment

from cuvee.plan.plan import Plan
from cuvee.plan.provenance import methods_of

_CARD = """---
library_name: transformers
tags:
- merge
- cuvee
{%- if ids %}
base_model:
{%- for id in ids %}
- {{ id }}
{%- endfor %}
{%- endif %}
---
# {{ title }}

A merge made with [cuvee](https://pypi.org/project/cuvee/) {{ version }}.

{% for method in methods -%}
* **{{ method.name }}** ({{ method.paper }}): {{ method.summary }}
{% endfor %}
## Models

{% for label in labels -%}
* {{ label }}
{% endfor %}
## Recipe

```yaml
{{ recipe }}```
"""


def model_card(plan: Plan) -> str:
    """README.md of a merge: what was merged, how, and the recipe that does it again."""
    from cuvee import __version__

    labels = [checkpoint.label for checkpoint in plan.checkpoints]
    text = Environment(autoescape=False).from_string(_CARD)
    return text.render(
        title=f"Merge of {len(labels)} models by {plan.recipe.merge_method}",
        version=__version__,
        methods=list(methods_of(plan.outputs).values()),
        labels=labels,
        ids=[label for label in labels if label.count("/") == 1 and not label.startswith((".", "/", "~"))],
        recipe=plan.recipe.to_yaml(),
    )
