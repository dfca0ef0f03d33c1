"""How many points of a space the search tries in a minute, and what takes the time.

    python bench/search.py --space examples/spaces/array.toml --objective latency,energy,area --trials 1000 --jobs 2

A point is a machine that was built, compiled for and timed by the analytic reading; one tried before does not count. CPU seconds are
of this process (Optuna, the store, the sharing out) and of the points; the difference to the wall time is what the machine did meanwhile.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from unmask import Policy
from unmask.explore.evaluate import Task, Workload
from unmask.explore.measures import objectives_named
from unmask.explore.search import AHEAD, search
from unmask.explore.space import Space, read_space
from unmask.explore.store import Store
from unmask.explore.workers import workers
from unmask.machine.config import Machine
from unmask.models.catalogue import architecture
from unmask.silicon.cost.table import load_costs


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", type=Path, default=Path("examples/spaces/array.toml"))
    parser.add_argument("--model", default="llada-8b")
    parser.add_argument("--objective", default="latency,energy,area")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--batch", type=int, help="by default the space's")
    parser.add_argument("--cache", help="by default the space's")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    given = arguments()
    described = read_space(given.space)
    batch = given.batch or described.workload.get("batch", 1)
    cache = given.cache or described.workload.get("cache", "none")
    workload = Workload(architecture(given.model), Policy(256, 32, 256, cache=cache), 512, batch)
    space = Space(Machine.load(described.machine), described.fields)
    task = Task(space, workload, objectives_named(given.objective), load_costs(), described.limits)
    with tempfile.TemporaryDirectory() as folder, workers(given.jobs, None) as (executor, width):
        store = Store(Path(folder) / "study.db", task, {}, False)
        started, used = time.perf_counter(), time.process_time()
        points = search(task, store, given.trials, 0, max(AHEAD, 2 * width), executor, lambda point: None)
        seconds, used = time.perf_counter() - started, time.process_time() - used
    distinct = {tuple(point.parameters.items()): point.outcome for point in points}
    cpu = sum(outcome.cpu_seconds for outcome in distinct.values())
    feasible = sum(not outcome.reason for outcome in distinct.values())
    if given.jobs == 1:
        used -= cpu
    print(f"{len(points):,} trials of {len(distinct):,} machines, {feasible:,} feasible, {given.jobs} processes: {seconds:.1f} s")
    print(f"{len(distinct) / seconds * 60:,.0f} machines a minute, processes' start included")
    each = cpu / len(distinct) + used / len(points)
    print(f"CPU of a machine: {1e3 * cpu / len(distinct):.0f} ms; of the search, a trial: {1e3 * used / len(points):.0f} ms")
    print(f"together {1e3 * each:.0f} ms: {120 / each:,.0f} machines a minute of two processors that do nothing else")


if __name__ == "__main__":
    main()
