"""Models and tasks that anyone can make from packages: a base, experts fine-tuned from it, data to score them on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cuvee.core import CuveeError, did_you_mean

if TYPE_CHECKING:
    from cuvee.evaluate.zoo.build import Zoo

NAMES = ("text", "vision", "lm")
LIBRARIES = ("transformers", "peft", "PIL")


def zoo(name: str) -> Zoo:
    """The zoo of that name. Raises CuveeError if there is none, or if a library is missing that zoos need."""
    if name not in NAMES:
        raise CuveeError(f"There is no zoo {name}.{did_you_mean(name, NAMES)} There are {', '.join(NAMES)}.")
    try:
        for library in LIBRARIES:
            import_module(library)
    except ModuleNotFoundError as error:
        raise CuveeError(f"Zoos need {error.name}: pip install 'cuvee[zoo]'.") from None
    from cuvee.evaluate.zoo.lm.zoo import lm_zoo
    from cuvee.evaluate.zoo.text.zoo import text_zoo
    from cuvee.evaluate.zoo.vision.zoo import vision_zoo

    return {"text": text_zoo, "vision": vision_zoo, "lm": lm_zoo}[name]()
