"""Uses an installed cuvee as people do, each command in a fresh process. Run by the environment it is installed in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # for the server only: the package itself lies in src/

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM  # noqa: E402

import cuvee  # noqa: E402
from tests.store.hub_server import DEAD, Asker, Hub, Said, model, serving  # noqa: E402


def main(folder: Path) -> None:
    assert Path(cuvee.__file__).is_relative_to(sys.prefix), f"not the installed one: {cuvee.__file__}"
    with serving() as hub:
        asker = Asker(folder, hub.url)
        script = Path(sys.executable).with_name("cuvee")
        version = subprocess.run([script, "--version"], capture_output=True, text=True, check=True, cwd=folder)
        assert version.stdout.strip() == f"cuvee {cuvee.__version__}", version.stdout
        assert "merge" in good(asker.cuvee("--help"))
        assert "ties" in good(asker.cuvee("methods"))
        merge_files(asker)
        merge_a_language_model(asker)
        ask_the_hub(asker, hub)
    print("all well")


def merge_files(asker: Asker) -> None:
    """Files without a config, and the pages that templates in the wheel make."""
    for name, factor in (("a", 1.0), ("b", 3.0)):
        (asker.here / name).mkdir()
        save_file({"w.weight": torch.eye(8) * factor}, asker.here / name / "model.safetensors")
    good(asker.cuvee("merge", "a", "b", "-m", "linear", "-o", "out"))
    assert load_file(asker.here / "out" / "model.safetensors")["w.weight"].equal(torch.eye(8) * 2)
    good(asker.cuvee("verify", "out"))
    good(asker.cuvee("report", "out"))
    assert "</html>" in (asker.here / "out" / "report.html").read_text()


def merge_a_language_model(asker: Asker) -> None:
    """The result loads in the newest transformers."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    for seed, name in enumerate(("base", "one", "two")):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(asker.here / name)
    good(asker.cuvee("merge", "one", "two", "--base", "base", "-m", "ties", "-p", "density=0.5", "-o", "blend"))
    loaded, info = AutoModelForCausalLM.from_pretrained(asker.here / "blend", output_loading_info=True)
    assert not info["missing_keys"], info
    assert loaded(torch.tensor([[1, 2, 3]])).logits.isfinite().all()


def ask_the_hub(asker: Asker, hub: Hub) -> None:
    """A download, then what is in the cache; and what is told of a wrong name."""
    for factor, name in ((1, "one"), (3, "three")):
        hub.add(f"owner/{name}", model({"w.weight": torch.eye(8) * factor}, **{"spm.model": "spm"}))
    for out, where in (("asked", {}), ("cached", {"HF_ENDPOINT": DEAD}), ("offline", {"HF_HUB_OFFLINE": "1"})):
        good(asker.cuvee("merge", "owner/one", "owner/three", "-m", "linear", "-o", out, **where))
        assert load_file(asker.here / out / "model.safetensors")["w.weight"].equal(torch.eye(8) * 2)
        assert (asker.here / out / "spm.model").read_text() == "spm"
    for where in ({}, {"HF_ENDPOINT": DEAD}, {"HF_HUB_OFFLINE": "1"}):
        said = asker.cuvee("inspect", "bsae", **where)
        assert said.code == 2, said
        assert len(said.err.strip().splitlines()) == 1, said.err
        assert said.err.strip().endswith("Did you mean base?"), said.err


def good(said: Said) -> str:
    assert said.code == 0, f"exit status {said.code}\n{said.out}\n{said.err}"
    assert "Traceback" not in said.err, said.err
    return said.out


if __name__ == "__main__":
    main(Path(sys.argv[1]))
