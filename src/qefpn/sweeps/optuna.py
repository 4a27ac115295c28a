"""A search instead of a grid: ``hydra/sweeper=optuna`` asks Optuna what to try next, and tells it how that did.

The study lies in SQLite, and a trial's number is its job's: of a search that was stopped the jobs that were begun are
gone on with, and the study knows all that was found.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from qefpn.atomic import write_atomic
from qefpn.sweeps.plan import SweepRefused

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

RESULTS = "optimization_results.yaml"
STUDY = "study.db"
SAMPLERS = {"tpe": "TPESampler", "gp": "GPSampler", "qmc": "QMCSampler", "random": "RandomSampler"}
DIRECTIONS = ("minimize", "maximize")


class OptunaSweeper(Sweeper):
    """Hydra's sweeper of that name; its arguments are the keys of ``conf/hydra/sweeper/optuna.yaml``."""

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        direction: str,
        sampler: str,
        seed: int,
        storage: str | None,
        study_name: str,
        params: Mapping[str, Any],
    ) -> None:
        for key, value in (("n_trials", n_trials), ("n_jobs", n_jobs)):
            if not isinstance(value, int) or value < 1:
                raise SweepRefused(f"hydra.sweeper.{key} must be a whole number from 1 on, not {value!r}")
        _among("direction", direction, (*DIRECTIONS, "auto"))
        _among("sampler", sampler, tuple(SAMPLERS))
        self.n_trials, self.n_jobs, self.direction, self.seed = n_trials, n_jobs, direction, seed
        self.sampler, self.storage, self.study_name, self.params = sampler, storage, study_name, dict(params)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are ``n_trials`` in this sweep's directory, and write the best one's figures.

        Raises:
            SweepRefused: there is no Optuna, no axis to search, or a storage that cannot be opened.
        """
        overrides = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        fixed, space = search_space(OverridesParser.create().parse_overrides(overrides))
        if not space:
            raise SweepRefused("hydra/sweeper=optuna has nothing to search: give a key several values, or an interval")
        directory = Path(str(self.config.hydra.sweep.dir)).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, directory / "multirun.yaml")
        study = self._study(directory)
        own = [trial for trial in study.get_trials() if trial.user_attrs.get("sweep") == str(directory)]
        begun: list[Trial | FrozenTrial] = [trial for trial in own if not trial.state.is_finished()]
        left = self.n_trials - len(own)
        while begun or left > 0:
            while len(begun) < self.n_jobs and left > 0:
                asked = study.ask(space)
                asked.set_user_attr("sweep", str(directory))
                begun.append(asked)
                left -= 1
            batch, begun = begun[: self.n_jobs], begun[self.n_jobs :]
            self._run(study, fixed, batch)
        write_best(study, directory / RESULTS)

    def _run(self, study: Study, fixed: Sequence[str], trials: Sequence[Trial | FrozenTrial]) -> None:
        """Launch a job for each trial, and tell the study what came of it."""
        from optuna.trial import TrialState

        for group in consecutive(trials):
            overrides = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in group]
            self.validate_batch_is_legal(overrides)
            for trial, ended in zip(group, self.launcher.launch(overrides, group[0].number), strict=True):
                score = ended.return_value
                if score is None or math.isnan(score):  # error.txt in the job's directory says why
                    study.tell(trial.number, state=TrialState.FAIL)
                else:
                    study.tell(trial.number, float(score))

    def _study(self, directory: Path) -> Study:
        try:
            import optuna
        except ImportError:
            raise SweepRefused("hydra/sweeper=optuna needs Optuna: pip install 'qefpn[sweeps]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        falls = str(self.config.monitor).endswith("mae") if self.direction == "auto" else self.direction == "minimize"
        url = self.storage or f"sqlite:///{directory / STUDY}"
        try:
            study = optuna.create_study(
                study_name=self.study_name,
                storage=url,
                direction="minimize" if falls else "maximize",
                load_if_exists=True,
            )
        except Exception as error:  # SQLAlchemy's, of many kinds
            raise SweepRefused(f"hydra.sweeper.storage={url}: {str(error).splitlines()[0]}") from None
        # With the first run's seed, a search that goes on would draw the same values once more.
        study.sampler = getattr(optuna.samplers, SAMPLERS[self.sampler])(seed=self.seed + len(study.get_trials()))
        return study


def _among(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SweepRefused(f"hydra.sweeper.{key} is one of {', '.join(choices)}, not {value!r}")


def consecutive(trials: Iterable[Trial | FrozenTrial]) -> list[list[Trial | FrozenTrial]]:
    """Groups of trials whose numbers follow each other, as Hydra numbers the jobs of a launch."""
    numbered = enumerate(sorted(trials, key=lambda trial: trial.number))
    return [[trial for _, trial in group] for _, group in itertools.groupby(numbered, lambda at: at[1].number - at[0])]


def search_space(parsed: Sequence[Override]) -> tuple[list[str], dict[str, BaseDistribution]]:
    """What all jobs have in common, and the distribution of each axis by its key."""
    fixed, space = [], {}
    for override in parsed:
        if override.is_sweep_override():
            space[override.get_key_element()] = distribution(override)
        else:
            fixed.append(f"{override.get_key_element()}={override.get_value_element_as_str()}")
    return fixed, space


def distribution(override: Override) -> BaseDistribution:
    """An axis as Optuna sees it: an interval (``tag(log,...)``: its logarithm), a range, or values without an order."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high, log = value.start, value.end, "log" in value.tags
        assert low is not None
        assert high is not None
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    values = list(override.sweep_string_iterator())
    if not override.is_range_sweep() or len(values) < 2:
        return CategoricalDistribution(values)
    numbers = sorted(float(text) for text in values)
    if all(number.is_integer() for number in numbers):
        whole = [int(number) for number in numbers]
        return IntDistribution(whole[0], whole[-1], step=whole[1] - whole[0])
    return FloatDistribution(numbers[0], numbers[-1], step=numbers[1] - numbers[0])


def write_best(study: Study, path: Path) -> None:
    """``best_params`` and ``best_value`` as YAML; nothing where every trial failed."""
    from optuna.trial import TrialState

    if study.get_trials(states=(TrialState.COMPLETE,)):
        best = {"name": "optuna", "best_params": study.best_params, "best_value": study.best_value}
        write_atomic(path, yaml.safe_dump(best, sort_keys=False))
