"""The search itself: points proposed, evaluated side by side, and taken note of in the order of their numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from unmask.errors import UnmaskError
from unmask.explore.evaluate import Outcome, Reading, Task, evaluate
from unmask.explore.fields import Value
from unmask.explore.sampling import Sampler
from unmask.explore.store import Point, Store

AHEAD = 16
"""How many trials are under way, at least: a proposal knows those before the last so many. It is part of what a seed decides."""


def search(
    task: Task, store: Store, trials: int, seed: int, ahead: int, executor: Executor, progress: Callable[[Point], None]
) -> list[Point]:
    """Try points until there are `trials`, those that the store has included.

    Args:
        task: what is searched.
        store: where every trial is written as soon as it and all before it have ended.
        trials: how many.
        seed: decides the points, with `ahead`.
        ahead: how many trials are under way at most.
        executor: evaluates the points; a point that was tried before is not evaluated again.
        progress: told of every trial as it is written, and of those that were there.

    Returns:
        All trials by number.

    Raises:
        UnmaskError: a process that evaluates points has died.
    """
    sampler, points = Sampler(task, seed), store.points()
    known = len(points)
    before: dict[tuple[Any, ...], Future[Outcome]] = {}
    waiting: deque[tuple[dict[str, Value], dict[str, Any], Future[Outcome]]] = deque()
    done: list[Point] = []

    def end_first() -> None:
        parameters, marks, future = waiting.popleft()
        point = Point(len(done), parameters, marks, future.result())
        if point.number >= known:
            store.add(point)
        sampler.learn(point.number, point.outcome, point.objectives(task.objectives))
        done.append(point)
        progress(point)

    try:
        for number in range(max(trials, known)):
            if len(waiting) == ahead:
                end_first()
            if number < known:
                parameters, marks = dict(points[number].parameters), dict(points[number].marks)
                sampler.recall(parameters, marks)
                future: Future[Outcome] = Future()
                future.set_result(points[number].outcome)
            else:
                parameters, marks = sampler.propose()
                future = before.get(_key(parameters)) or executor.submit(evaluate, task, task.space.values(parameters))
            before.setdefault(_key(parameters), future)
            waiting.append((parameters, marks, future))
        while waiting:
            end_first()
    except BrokenProcessPool:
        raise UnmaskError("a process that evaluates points has died; --resume goes on with the search") from None
    return done


def _key(parameters: dict[str, Value]) -> tuple[Any, ...]:
    return tuple(sorted(parameters.items()))


def time_front(
    task: Task, store: Store, points: Iterable[Point], executor: Executor, progress: Callable[[Point, Outcome], None]
) -> dict[int, Outcome]:
    """The cycle reading of some points, by number; one that the store has is not asked again.

    Raises:
        UnmaskError: a process that evaluates points has died.
    """
    found: dict[int, Outcome] = {}
    try:
        futures = []
        for point in points:
            outcome = store.cycle_reading(point.number)
            if outcome is None:
                futures.append((point, executor.submit(evaluate, task, task.space.values(point.parameters), Reading.CYCLE)))
            else:
                found[point.number] = outcome
        for point, future in futures:
            found[point.number] = future.result()
            store.add_cycle_reading(point.number, found[point.number])
            progress(point, found[point.number])
    except BrokenProcessPool:
        raise UnmaskError("a process that evaluates points has died; --resume goes on with the search") from None
    return found
