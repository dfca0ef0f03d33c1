"""Which point to try next: Optuna's TPE for one objective, NSGA-II for several.

Every proposal has a generator of its own, seeded by the search's seed and the trial's number, and sees the trials up to a number that does
not depend on how fast they end. So a search of one seed proposes the same points on any number of processes, and after it was killed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unmask.explore.evaluate import Outcome, Task
from unmask.explore.fields import Value
from unmask.explore.optional import optuna
from unmask.explore.store import CONSTRAINTS

POPULATION = 50
"""Of NSGA-II."""
_EXCESS = "excess"


class Sampler:
    """Proposes points and learns what became of them, in memory."""

    def __init__(self, task: Task, seed: int) -> None:
        """Begin with nothing known."""
        self._library, self._task, self._seed = optuna(), task, seed
        self._study = self._library.create_study(directions=["minimize"] * len(task.objectives))
        self._count = 0

    def propose(self) -> tuple[dict[str, Value], dict[str, Any]]:
        """The parameters of the next trial, and the sampler's marks on it; the first is the base machine, if the space has it."""
        number = self._count
        first = self._task.space.first if number == 0 else None
        if first is not None:
            self.recall(first, {})
            return first, {}
        self._count += 1
        self._study.sampler = self._sampler(number)
        trial = self._study.ask(self._task.space.distributions)
        marks = self._study.get_trials(deepcopy=False)[number].system_attrs
        return trial.params, {key: value for key, value in marks.items() if key != CONSTRAINTS}

    def recall(self, parameters: dict[str, Value], marks: dict[str, Any]) -> None:
        """Take the next trial to have been proposed with these parameters."""
        sampler = self._sampler(self._count)
        self._study.add_trial(
            self._library.trial.create_trial(
                state=self._library.trial.TrialState.RUNNING,
                params=parameters,
                distributions=self._task.space.distributions,
                system_attrs=marks,
            )
        )
        if isinstance(sampler, self._library.samplers.NSGAIISampler):
            # A generation's parents are chosen when its first trial is proposed, and stay the same.
            sampler.get_parent_population(self._study, marks.get(sampler._get_generation_key(), 0))
        self._count += 1

    def learn(self, number: int, outcome: Outcome, objectives: list[float]) -> None:
        """Take note of a trial's end."""
        self._study.sampler = self._sampler(number)
        trial = self._library.trial.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)
        trial.set_user_attr(_EXCESS, outcome.excess)
        self._study.tell(trial, objectives)

    def _sampler(self, number: int) -> Any:
        seed = int(np.random.SeedSequence((self._seed, number)).generate_state(1)[0])
        if len(self._task.objectives) == 1:
            return self._library.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, constraints_func=_excess)
        return self._library.samplers.NSGAIISampler(seed=seed, population_size=POPULATION, constraints_func=_excess)


def _excess(trial: Any) -> tuple[float]:
    return (trial.user_attrs[_EXCESS],)
