"""Make the experts, merge them four ways, score everything and print the table."""

import sys
import time

import cuvee

TASKS = ("newsgroups", "reuters", "tweets")
SEED = 0


def run() -> None:
    """Run the demo; what it makes is kept in the cache folder."""
    from rich.console import Console

    from cuvee.engine.launch import default_workers
    from cuvee.evaluate.zoo.build import build
    from cuvee.evaluate.zoo.folders import read_manifest
    from cuvee.evaluate.zoo.text.tasks import TASKS as ALL_TASKS
    from cuvee.evaluate.zoo.text.zoo import text_zoo
    from demo.merges import MERGES
    from demo.table import results_table

    console = Console()
    processes = default_workers()

    started = time.perf_counter()
    zoo = text_zoo([task for task in ALL_TASKS if task.name in TASKS], name="demo", adapters=False)
    folder = build(zoo, seed=SEED, processes=processes, console=console)
    experts = {task: folder / "experts" / str(SEED) / task for task in TASKS}
    trained = time.perf_counter()

    base, models = folder / "base", list(experts.values())
    merges = {merge.name: folder / "merges" / merge.name.replace(" ", "_") for merge in MERGES}
    for merge in MERGES:
        cuvee.merge(merge.recipe(base, models), merges[merge.name], overwrite=True)
    merged = time.perf_counter()

    tasks = [folder / "tasks" / task for task in TASKS]
    with console.status("Scoring on the test splits"):
        scores = cuvee.score({"base": base, **experts, **merges}, tasks, split="test", processes=processes)
    scored = time.perf_counter()

    console.print(results_table(scores, merges=list(merges)))
    spent = sum(read_manifest(folder)["cpu_seconds"].values())
    console.print(
        f"experts {trained - started:.1f} s ({spent:.0f} CPU-seconds when they were made), "
        f"{len(merges)} merges {merged - trained:.1f} s, scores {scored - merged:.1f} s\nkept in {folder}",
        soft_wrap=True,
    )


def main() -> int:
    """The exit status: 0, or 2 if a package is missing."""
    try:
        run()
    except cuvee.CuveeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
