"""Renamings: one model's names of tensors under another's, whatever wrapped the model or saved it.

A renaming is found from names and shapes: the replacement of one leading part by another that maps the most names,
again for what is left, since the parts of a vision-language model have prefixes of their own; wrappers inside names
are left out first. Where that leaves names on both sides, transformers' table of renamed tensors is asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cuvee.architecture import tables
from cuvee.architecture.roles import role_outside

Parts = tuple[str, ...]
Shape = tuple[int, ...] | None
"""Shape of a tensor; None where it is not known, which fits any."""

ALIKE = 16
"""Names with one ending beyond which the ending says nothing."""


@dataclass
class Renaming:
    """Wanted name -> found name, and how it came about."""

    names: dict[str, str]
    rules: list[str] = field(default_factory=list)  # in words, the names that are alike left out
    doubts: list[str] = field(default_factory=list)  # replacements that fit equally well, so that none was taken
    _prefixes: list[tuple[Parts, Parts]] = field(default_factory=list)  # found prefix -> wanted prefix

    def forward(self, found: str) -> str:
        """What a found name that is not among the wanted ones would be called there."""
        parts = tuple(found.split("."))
        for old, new in self._prefixes:
            if parts[: len(old)] == old:
                return ".".join((*new, *parts[len(old) :]))
        return found


class _Rule(NamedTuple):
    old: Parts  # leading parts of found names
    new: Parts  # of the wanted ones
    pairs: tuple[tuple[str, str], ...]  # (wanted, found) that it maps, of one shape
    misfits: int  # pairs that it maps, of other shapes

    @property
    def shared(self) -> int:
        """Words that both sides have."""
        return len(set(self.old) & set(self.new))

    @property
    def wraps(self) -> bool:
        """Whether one side only has something in front of what the other has."""
        short, long = sorted((self.old, self.new), key=len)
        return long[len(long) - len(short) :] == short


def match(wanted: Mapping[str, Shape], found: Mapping[str, Shape], model_types: Iterable[str] = ()) -> Renaming:
    """The renaming that maps the most found names to wanted ones.

    wanted, found: name -> shape. model_types: of both models, to look up in transformers' table.
    """
    renaming = Renaming({name: name for name in wanted if name in found})
    matching = _Matching(wanted, found, renaming)
    if matching.open:
        matching.match({name: name for name in (*wanted, *found)})
    if renaming.doubts:  # a table would settle by chance what the names leave open
        return renaming
    if matching.open:
        matching.match(tables.canonical((*matching.wanted, *matching.found), model_types))
    if matching.open:
        matching.take_heads()
    return renaming


def match_names(wanted: Iterable[str], found: Iterable[str]) -> dict[str, str]:
    """Wanted name -> found name, from names alone."""
    return match(dict.fromkeys(wanted), dict.fromkeys(found)).names


class _Matching:
    """Names that are not matched yet, and rules that match them."""

    def __init__(self, wanted: Mapping[str, Shape], found: Mapping[str, Shape], renaming: Renaming) -> None:
        taken = set(renaming.names.values())
        self.wanted = {name: shape for name, shape in wanted.items() if name not in renaming.names}
        self.found = {name: shape for name, shape in found.items() if name not in taken}
        self.renaming = renaming
        self._words: set[str] = set()  # of the rules that were taken

    @property
    def open(self) -> bool:
        """Whether both sides have names that match nothing."""
        return bool(self.wanted and self.found)

    def match(self, spelt: Mapping[str, str]) -> None:
        """Match names by their spellings: equal ones, then by the best replacement of leading parts, repeatedly."""
        wanted = {name: tuple(spelt[name].split(".")) for name in self.wanted}
        found = {name: tuple(spelt[name].split(".")) for name in self.found}
        found = self._without_wrappers(found, wanted)
        wanted = self._without_wrappers(wanted, found)
        self._take_equal(wanted, found)
        while self.open:
            wanted = {name: wanted[name] for name in self.wanted}
            found = {name: found[name] for name in self.found}
            rule = self._best(wanted, found)
            if rule is None:
                return
            self._words |= {*rule.old, *rule.new}
            self.renaming._prefixes.append((rule.old, rule.new))
            old, new = ".".join((*rule.old, "")) or "(nothing)", ".".join((*rule.new, "")) or "(nothing)"
            self.renaming.rules.append(f"{old} is {new}")
            self._take(rule.pairs, rule)
            self._take_misfits(rule, wanted, found)

    def take_heads(self) -> None:
        """Output heads, of which each side has one left, are one, whatever they are called."""
        wanted, found = ([n for n in names if role_outside(n) == "head"] for names in (self.wanted, self.found))
        if len(wanted) == len(found) == 1 and _fit(self.wanted[wanted[0]], self.found[found[0]]):
            self.renaming.rules.append(f"{found[0]} is {wanted[0]}")
            self._take([(wanted[0], found[0])])

    def _take(self, pairs: Iterable[tuple[str, str]], rule: _Rule | None = None) -> None:
        for one, other in pairs:
            self.renaming.names[one] = other
            self.wanted.pop(one, None)
            self.found.pop(other, None)

    def _take_misfits(self, rule: _Rule, wanted: Mapping[str, Parts], found: Mapping[str, Parts]) -> None:
        """What the rule maps to another shape is matched too, so that messages can tell of both shapes."""
        there = {parts: name for name, parts in wanted.items() if name in self.wanted}
        pairs = []
        for name, parts in found.items():
            target = there.get((*rule.new, *parts[len(rule.old) :]))
            if name in self.found and parts[: len(rule.old)] == rule.old and target:
                pairs.append((target, name))
        self._take(pairs)

    def _take_equal(self, wanted: Mapping[str, Parts], found: Mapping[str, Parts]) -> None:
        there = defaultdict(list)
        for name, parts in found.items():
            there[parts].append(name)
        count = Counter(wanted.values())
        pairs = [(n, there[p][0]) for n, p in wanted.items() if count[p] == len(there.get(p, ())) == 1]
        if pairs:
            words = {w for one, other in pairs for w in {*one.split(".")} ^ {*other.split(".")} if not w.isdigit()}
            self._words |= words
            self.renaming.rules.append(f"{', '.join(sorted(words))}: left out or renamed inside names")
        self._take(pairs)

    def _without_wrappers(self, names: dict[str, Parts], others: Mapping[str, Parts]) -> dict[str, Parts]:
        """Names without the words inside them, behind a layer's index, that no other name has, where that is a name
        that the others have behind a layer's index."""
        known = {word for parts in others.values() for word in parts}
        ends = {parts[_first_index(parts) :] for parts in others.values() if _first_index(parts) >= 0}
        short = {}
        for name, parts in names.items():
            at = _first_index(parts)
            if at < 0:
                continue
            kept = tuple(w for i, w in enumerate(parts) if i <= at or i == len(parts) - 1 or w in known or w.isdigit())
            if kept != parts and kept[_first_index(kept) :] in ends:
                short[name] = kept
        spelt = {**names, **short}
        return spelt if short and len(set(spelt.values())) == len(spelt) else names

    def _best(self, wanted: Mapping[str, Parts], found: Mapping[str, Parts]) -> _Rule | None:
        """The replacement that maps the most names; None where none is sure."""
        rules = [rule for rule in self._rules(wanted, found) if self._is_sure(rule, wanted, found)]
        rules.sort(key=lambda rule: (-len(rule.pairs), -rule.shared, len(rule.old) + len(rule.new)))
        if not rules:
            return None
        first = rules[0]
        rivals = [r for r in rules[1:] if len(r.pairs) == len(first.pairs) and set(r.pairs) != set(first.pairs)]
        rivals = [r for r in rivals if r.shared == first.shared or (r.wraps and first.wraps)]
        rivals = [r for r in rivals if _overlap(r, first)]
        if rivals:
            told = [".".join(rule.old or rule.new) + "." for rule in (first, *rivals)]
            self.renaming.doubts.append(f"{' and '.join(sorted(set(told)))} fit equally well")
            return None
        return first

    def _rules(self, wanted: Mapping[str, Parts], found: Mapping[str, Parts]) -> list[_Rule]:
        endings: dict[Parts, list[str]] = defaultdict(list)
        for name, parts in wanted.items():
            for at in range(len(parts)):
                endings[parts[at:]].append(name)
        counts: Counter[tuple[Parts, Parts]] = Counter()
        for name, parts in found.items():
            for at in range(len(parts)):
                alike = endings.get(parts[at:], ())
                alike = [each for each in alike if _fit(self.wanted[each], self.found[name])]
                if len(alike) > ALIKE:
                    break
                for each in alike:
                    counts[parts[:at], wanted[each][: len(wanted[each]) - len(parts) + at]] += 1
                if alike:
                    break
        there = {parts: name for name, parts in wanted.items()}
        return [self._rule(old, new, there, found) for old, new in counts]

    def _rule(self, old: Parts, new: Parts, there: Mapping[Parts, str], found: Mapping[str, Parts]) -> _Rule:
        pairs, misfits = [], 0
        for name, parts in found.items():
            target = there.get((*new, *parts[len(old) :])) if parts[: len(old)] == old else None
            if target is None:
                continue
            if _fit(self.wanted[target], self.found[name]):
                pairs.append((target, name))
            else:
                misfits += 1
        return _Rule(old, new, tuple(pairs), misfits)

    def _is_sure(self, rule: _Rule, wanted: Mapping[str, Parts], found: Mapping[str, Parts]) -> bool:
        """Whether a replacement moves whole stacks or whole models, not single tensors that look alike."""
        if len(rule.pairs) <= rule.misfits:
            return False
        whole = not self.renaming.names and (len(rule.pairs) + rule.misfits in (len(self.wanted), len(self.found)))
        if any(word.isdigit() for word in (*rule.old, *rule.new)):
            return whole and len(rule.pairs) > 1
        known = bool(self._words) and {*rule.old, *rule.new} <= self._words
        stack = any(_first_index(found[name][len(rule.old) :]) >= 0 for _, name in rule.pairs)
        if not (stack or whole or known):
            return False
        return known or _covers(rule, wanted, found)


def _covers(rule: _Rule, wanted: Mapping[str, Parts], found: Mapping[str, Parts]) -> bool:
    """Whether at least half of the names of the parts that it maps, on one side, are mapped."""
    rests = [found[name][len(rule.old) :] for _, name in rule.pairs]
    shared: list[str] = []
    for words in zip(*rests, strict=False):
        if len(set(words)) > 1 or words[0].isdigit():
            break
        shared.append(words[0])
    if len(rule.pairs) == 1:
        shared = []
    sides = ((rule.old, found), (rule.new, wanted))
    counts = [sum(p[: len(s) + len(shared)] == (*s, *shared) for p in names.values()) for s, names in sides]
    return any(2 * len(rule.pairs) >= count for count in counts)


def _overlap(one: _Rule, other: _Rule) -> bool:
    wanted, found = ({pair[i] for pair in one.pairs} & {pair[i] for pair in other.pairs} for i in (0, 1))
    return bool(wanted or found)


def _fit(one: Shape, other: Shape) -> bool:
    return one is None or other is None or one == other


def _first_index(parts: Parts) -> int:
    return next((i for i, part in enumerate(parts) if part.isdigit()), -1)
