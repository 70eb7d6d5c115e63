"""Chat templates by name: how a conversation is written for a model, as transformers reads it (Jinja)."""

from __future__ import annotations

AUTO = "auto"
"""The template of the base."""

_ALPACA = """\
{% for message in messages %}\
{% if message['role'] == 'system' %}{{ message['content'] | trim }}

{% elif message['role'] == 'user' %}### Instruction:
{{ message['content'] | trim }}

{% elif message['role'] == 'assistant' %}### Response:
{{ message['content'] | trim }}{{ eos_token }}

{% endif %}\
{% endfor %}\
{% if add_generation_prompt %}### Response:
{% endif %}"""

_CHATML = """\
{% for message in messages %}\
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}\
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

_EXAONE = """\
{% for message in messages %}\
{% if loop.first and message['role'] != 'system' %}[|system|][|endofturn|]
{% endif %}\
[|{{ message['role'] }}|]{{ message['content'] }}\
{% if message['role'] != 'user' %}[|endofturn|]{% endif %}\
{{ '\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}[|assistant|]{% endif %}"""

_LLAMA3 = """\
{{ bos_token }}\
{% for message in messages %}\
<|start_header_id|>{{ message['role'] }}<|end_header_id|>

{{ message['content'] | trim }}<|eot_id|>\
{% endfor %}\
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

_MISTRAL = """\
{{ bos_token }}\
{% set talk = namespace(system='') %}\
{% for message in messages %}\
{% if message['role'] == 'system' %}{% set talk.system = message['content'] | trim + '\\n\\n' %}\
{% elif message['role'] == 'user' %}[INST] {{ talk.system }}{{ message['content'] | trim }} [/INST]\
{% set talk.system = '' %}\
{% elif message['role'] == 'assistant' %} {{ message['content'] | trim }}{{ eos_token }}\
{% endif %}\
{% endfor %}"""

_TEXTS = {"alpaca": _ALPACA, "chatml": _CHATML, "exaone": _EXAONE, "llama3": _LLAMA3, "mistral": _MISTRAL}

NAMES = (AUTO, *_TEXTS)
"""What `chat_template` may say beside a template itself."""


def is_jinja(text: str) -> bool:
    """Whether a text is a template itself, not a name."""
    return "{{" in text or "{%" in text


def chat_template_text(name: str | None) -> str | None:
    """The template that a recipe's `chat_template` means; None where it is the base's (`auto`, or nothing given).

    Raises KeyError for what is neither a name of `NAMES` nor a template.
    """
    if name is None or name == AUTO:
        return None
    return name if is_jinja(name) else _TEXTS[name]
