"""A search on disk: an Optuna study in an SQLite file, which `optuna-dashboard` shows and which a killed search goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

from unmask.errors import UnmaskError
from unmask.explore.evaluate import Outcome, Task
from unmask.explore.fields import Value
from unmask.explore.optional import optuna

STUDY = "search"
_SETTINGS, _OUTCOME, _CYCLE = "settings", "outcome", "cycle"
CONSTRAINTS = "constraints"
"""Where Optuna keeps by how much a trial misses its limits."""


@dataclass(frozen=True)
class Point:
    """A trial that has ended.

    Attributes:
        number: of the trial, from 0.
        parameters: of the sampler.
        marks: what the sampler noted of the trial when it proposed it.
        outcome: of the analytic reading.
    """

    number: int
    parameters: Mapping[str, Value]
    marks: Mapping[str, Any]
    outcome: Outcome

    def objectives(self, names: tuple[str, ...]) -> list[float]:
        """The amounts of measures; infinity where the point was not timed."""
        return [self.outcome.measures.get(name, inf) for name in names]


class Store:
    """The trials of one search, in the order of their numbers, each written when it and all before it have ended."""

    def __init__(self, path: Path, task: Task, settings: Mapping[str, Any], resume: bool) -> None:
        """Open the file, or make it.

        Args:
            path: of the file.
            task: what is searched.
            settings: whatever must be the same when a search goes on.
            resume: whether a search that is there may go on.

        Raises:
            UnmaskError: a search is there and is not to go on, or it is one of other settings; the file cannot be written.
        """
        library = optuna()
        if path.exists() and not resume:
            raise UnmaskError(f"{path}: there is a search already: --resume goes on with it, another --output begins one")
        try:
            storage = library.storages.RDBStorage(f"sqlite:///{path}")
            self._tables, self._connection = library.storages._rdb.models, storage.engine.connect()
            # Written to a log that outlives the process, if not the loss of power: a disk may take longer to sync than a point takes.
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
                self._connection.exec_driver_sql(f"PRAGMA {pragma}")
            self._connection.commit()
            directions = ["minimize"] * len(task.objectives)
            self._study = library.create_study(storage=storage, study_name=STUDY, directions=directions, load_if_exists=True)
        except Exception as error:
            raise UnmaskError(f"{path}: cannot open the study: {' '.join(str(error).split())}") from None
        self._task = task
        given, known = json.loads(json.dumps(settings)), self._study.user_attrs.get(_SETTINGS)
        if known is None:
            self._study.set_user_attr(_SETTINGS, given)
        elif given != known:
            differs = [key for key in given if given[key] != known.get(key)]
            raise UnmaskError(f"{path}: another search, with other {', '.join(differs)}; expected another --output")

    def points(self) -> list[Point]:
        """All trials so far."""
        return [
            Point(trial.number, trial.params, _marks(trial.system_attrs), Outcome(**trial.user_attrs[_OUTCOME]))
            for trial in self._study.get_trials(deepcopy=False)
        ]

    def add(self, point: Point) -> None:
        """Write a trial, at once and whole.

        The rows are those of Optuna's `Study.add_trial`, in one transaction and without its query for each of them, which would take as
        long as the point itself.
        """
        tables, now = self._tables, datetime.now()  # Optuna's times have no zone
        row = {
            "number": point.number,
            "study_id": self._study._study_id,
            "state": "COMPLETE",
            "datetime_start": now,
            "datetime_complete": now,
        }
        attributes = {**point.marks, CONSTRAINTS: [point.outcome.excess]}
        stored = tables.TrialValueModel.value_to_stored_repr
        with self._connection.begin():
            (trial,) = self._connection.execute(tables.TrialModel.__table__.insert(), row).inserted_primary_key

            def insert(table: Any, rows: list[dict[str, Any]]) -> None:
                self._connection.execute(table.__table__.insert(), [{"trial_id": trial, **row} for row in rows])

            values = enumerate(map(stored, point.objectives(self._task.objectives)))
            insert(tables.TrialValueModel, [{"objective": number, "value": at, "value_type": kind} for number, (at, kind) in values])
            parameters = [(name, value, self._task.space.distributions[name]) for name, value in point.parameters.items()]
            insert(
                tables.TrialParamModel,
                [
                    {
                        "param_name": name,
                        "param_value": distribution.to_internal_repr(value),
                        "distribution_json": optuna().distributions.distribution_to_json(distribution),
                    }
                    for name, value, distribution in parameters
                ],
            )
            insert(tables.TrialUserAttributeModel, [{"key": _OUTCOME, "value_json": json.dumps(point.outcome.plain())}])
            insert(tables.TrialSystemAttributeModel, [{"key": key, "value_json": json.dumps(value)} for key, value in attributes.items()])

    def cycle_reading(self, number: int) -> Outcome | None:
        """What the cycle reading found of a trial, if it has been asked."""
        found = self._study.user_attrs.get(f"{_CYCLE} {number}")
        return None if found is None else Outcome(**found)

    def add_cycle_reading(self, number: int, outcome: Outcome) -> None:
        """Write what the cycle reading found of a trial."""
        self._study.set_user_attr(f"{_CYCLE} {number}", outcome.plain())


def _marks(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key != CONSTRAINTS}
