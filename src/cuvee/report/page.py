"""Pages of one file that need no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cuvee.core import CuveeError
from cuvee.report import units
from cuvee.report.svg import COLOURS
from cuvee.store.writer import write_text


def write_page(path: Path, template: str, facts: Mapping[str, Any]) -> Path:
    """Fill a template and write it. Raises CuveeError where it cannot be written."""
    from cuvee import __version__

    environment = Environment(
        loader=PackageLoader("cuvee.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    shown = (units.number, units.percent, units.size, units.duration, units.brief)
    environment.filters |= {each.__name__: each for each in shown}
    text = environment.get_template(template).render(colours=COLOURS, version=__version__, **facts)
    try:
        write_text(path, text + "\n")
    except OSError as error:
        raise CuveeError(f"{path}: {error.strerror}.") from None
    return path


def short_names(labels: Sequence[str]) -> list[str]:
    """The ends of paths, as many parts as tell them apart."""
    parts = [PurePath(label).parts or (label,) for label in labels]
    for count in range(1, max(map(len, parts), default=1) + 1):
        found = ["/".join(each[-count:]) for each in parts]
        if len(set(found)) == len(set(labels)):
            return found
    return list(labels)
