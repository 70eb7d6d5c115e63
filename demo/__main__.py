"""Make the experts, merge them, score everything and print the table.

With --all: every method at its default parameters, in place of four methods with chosen ones.
"""

import argparse
import os
import sys
import time

from demo.packages import missing_packages


def run(*, every: bool) -> None:
    """Run the demo, with every method or a few; what it makes is kept in the cache folder."""
    from rich.console import Console

    import cuvee
    from demo.cache import cache_folder
    from demo.experts import cpu_seconds, make_experts
    from demo.merges import MERGES, every_merge
    from demo.scores import score_all
    from demo.table import results_table

    console = Console()
    folder = cache_folder()

    started = time.perf_counter()
    base, experts = make_experts(folder, console=console)
    trained = time.perf_counter()

    models = list(experts.values())
    recipes = every_merge(base, models) if every else {merge.name: merge.recipe(base, models) for merge in MERGES}
    merges = {name: folder / "merges" / name.replace(" ", "_") for name in recipes}
    for name, recipe in recipes.items():
        try:
            cuvee.merge(recipe, merges[name], overwrite=True)
        except cuvee.CuveeError as error:
            console.print(f"{name} is left out: {error}", soft_wrap=True)
            del merges[name]
    merged = time.perf_counter()

    scores = score_all({"base": base, **experts, **merges}, folder, console=console)
    scored = time.perf_counter()

    table = results_table(
        scores["base"],
        experts={name: scores[name] for name in experts},
        merges={name: scores[name] for name in merges},
    )
    console.print(table)
    spent = sum(map(cpu_seconds, experts.values()))
    console.print(
        f"experts {trained - started:.1f} s ({spent:.0f} CPU-seconds when they were made), "
        f"{len(merges)} merges {merged - trained:.1f} s, scores {scored - merged:.1f} s\nkept in {folder}",
        soft_wrap=True,
    )


def main() -> int:
    """The exit status: 0, or 2 if a package is missing."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every method of the registry at its default parameters")
    options = parser.parse_args()
    if message := missing_packages():
        print(message, file=sys.stderr)
        return 2
    os.environ["HF_HUB_OFFLINE"] = "1"
    run(every=options.all)
    return 0


if __name__ == "__main__":
    sys.exit(main())
