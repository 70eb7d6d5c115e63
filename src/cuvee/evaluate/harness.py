"""Tasks of EleutherAI's lm-evaluation-harness, run by it on a model of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cuvee.core import CuveeError, did_you_mean
from cuvee.evaluate.language import AUTO
from cuvee.evaluate.models import Model, Reference, opened
from cuvee.kernels.process import settled

BATCH = 16


class HarnessScore(NamedTuple):
    """One metric of one task, as lm-eval names it."""

    task: str
    metric: str
    value: float
    stderr: float | None


def harness(
    model: Reference,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    include: str | Path | None = None,
    trust_remote_code: bool = False,
) -> list[HarnessScore]:
    """Run tasks of lm-eval on a causal language model, written or not.

    include: folder with task files of your own, in place of lm-eval's; they may hold code, which is run. limit: the
    first examples of each task. trust_remote_code: run code that the model's folder brings. lm-eval fetches its data by
    itself, never by code that these bring, and keeps no predictions. Raises CuveeError where lm-eval is missing, has no
    such task or fails, and for a tokenizer that names neither the beginning nor the end of a text.
    """
    os.environ.setdefault("HF_DATASETS_TRUST_REMOTE_CODE", "0")  # datasets would ask on the terminal
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise CuveeError("Tasks of lm-eval need it: pip install 'cuvee[eval]'.") from None
    with _told("its tasks"):
        manager = TaskManager(include_path=include and str(include), include_defaults=include is None)
        known = {task: bool(manager.match_tasks([task])) for task in tasks}
    for task, found in known.items():
        if not found:
            raise CuveeError(f"lm-eval has no task {task!r}.{did_you_mean(task, manager.all_tasks)}")
    loaded = Model(opened(model), trust_remote_code=trust_remote_code)
    if loaded.tokenizer.bos_token_id is None and loaded.tokenizer.eos_token_id is None:
        raise CuveeError(f"{loaded.label}: its tokenizer has neither eos nor bos, which lm-eval needs.")
    with settled():  # tensors of an unwritten merge are read in inference mode, and live in it
        network = loaded.network(AUTO)
        with _told(f"{loaded.label}: {', '.join(tasks)}"):
            runner = HFLM(
                pretrained=network,
                tokenizer=loaded.tokenizer,
                batch_size=BATCH,
                trust_remote_code=trust_remote_code,
            )
            results: dict[str, Any] = simple_evaluate(
                runner, tasks=list(tasks), limit=limit, task_manager=manager, log_samples=False
            )
    return [score for task, values in results["results"].items() for score in _scores(task, values)]


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of lm-eval, which have no base of their own, as CuveeError of one line; their cause is kept."""
    try:
        yield
    except CuveeError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = f": {lines[0].rstrip('.')}" if lines else ""
        raise CuveeError(f"lm-eval cannot run {what}: {type(error).__name__}{reason}.") from error


def _scores(task: str, results: dict[str, Any]) -> list[HarnessScore]:
    """lm-eval writes `metric,filter` and `metric_stderr,filter`."""
    found = []
    for key, value in results.items():
        metric, _, kept = key.partition(",")
        if isinstance(value, (int, float)) and kept and not metric.endswith("_stderr"):
            error = results.get(f"{metric}_stderr,{kept}")
            found.append(HarnessScore(task, metric, float(value), error if isinstance(error, float) else None))
    return found
