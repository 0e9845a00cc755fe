"""Trains the candidates of the grid search, and lets Optuna stop those that fall behind.

What is rationed is seeds: a candidate's accuracy after its first, first two, first four ... seeds is compared with that
of the others, and the worse half is pruned (successive halving, Li et al. 2018, arXiv 1810.05934). A training takes
seconds, and differs more between seeds than between its last epochs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effkernels.studies.grids import Candidate
from effkernels.studies.setting import Setting
from effkernels.studies.store import OutOfTime, Trainer
from effkernels.studies.training import Training
from effkernels.train.extras import need

PRUNERS = ("halving", "median", "none")
_PARAMETER, _ATTRIBUTE = "candidate", "effkernels"
_LOCKED_SECONDS = 20


@dataclass(frozen=True)
class Trained:
    """A candidate with its accuracies on the pictures held out, one for each seed from 0 on that it got to."""

    candidate: Candidate
    accuracies: tuple[float, ...]
    params: int
    macs: int


def search(
    candidates: Sequence[Candidate],
    setting: Setting,
    trainer: Trainer,
    path: Path,
    *,
    seeds: int = 5,
    pruner: str = "halving",
    also: Sequence[Training] = (),
) -> list[Trained]:
    """Train ``candidates``.

    Args:
        candidates: at least one; the first ones are trained first.
        setting: of the trainings.
        trainer: with the store; several processes may share that and ``path``.
        path: Optuna's study, an SQLite file. A study that was interrupted goes on.
        seeds: of a candidate that is not pruned.
        pruner: ``halving``, ``median`` (below the median of the others at as many seeds) or ``none``.
        also: what the caller is going to train after it: announced with the rest.

    Raises:
        ValueError: an argument out of range; ``path`` is no study, one of something else, or locked.
        ImportError: Optuna is not installed.
        OutOfTime: the trainer's time is over; the same call goes on.
    """
    if not candidates:
        raise ValueError("candidates must hold at least one")
    if pruner not in PRUNERS:
        raise ValueError(f"pruner must be one of {', '.join(PRUNERS)}, got {pruner!r}")
    if seeds < 2:
        raise ValueError(f"seeds must be at least 2, for an uncertainty; got {seeds}")
    optuna = need("optuna", "the grid search", extra="studies")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trainer.expect([*(t for c in candidates for t in _trainings(c, setting, seeds)), *also])
    by_name = {str(candidate.triple): candidate for candidate in candidates}
    with _one_line_errors(optuna, path):
        study = _open(optuna, path, pruner, by_name, setting, seeds, trainer)
        while _next(optuna, study, by_name, setting, seeds, trainer):
            pass
        # Only seeds that this search got to, whatever else the store has: a result is that of its own trainings.
        reached = {_name(t): len(t.intermediate_values) for t in study.get_trials(deepcopy=False)}
    return [_trained(c, setting, reached[str(c.triple)], trainer) for c in candidates]


def _key(name: str) -> str:
    return hashlib.sha256(f"trial {name}".encode()).hexdigest()[:16]


def _trainings(candidate: Candidate, setting: Setting, seeds: int) -> list[Training]:
    return [Training(candidate.architecture, setting, seed) for seed in range(seeds)]


def _trained(candidate: Candidate, setting: Setting, seeds: int, trainer: Trainer) -> Trained:
    rows = trainer.results(_trainings(candidate, setting, seeds))
    accuracies = tuple(row["accuracy"] for row in rows)
    return Trained(candidate, accuracies, rows[0]["params"], rows[0]["macs"])


def _pruner(optuna: Any, name: str) -> Any:
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=0)
    return optuna.pruners.NopPruner()


def _open(
    optuna: Any,
    path: Path,
    pruner: str,
    by_name: dict[str, Candidate],
    setting: Setting,
    seeds: int,
    trainer: Trainer,
) -> Any:
    """The study: a new one, or that of an earlier call."""
    path.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": _LOCKED_SECONDS}}
    )
    networks = [c.architecture.to_json() for c in by_name.values()]
    wanted = json.dumps(
        {"networks": networks, "setting": setting.to_json(), "seeds": seeds, "pruner": pruner},
        sort_keys=True,
    )
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:16]
    with trainer.store.alone():
        studies = optuna.study.get_all_study_names(storage)
        if studies and studies != ["grid"]:
            raise ValueError(
                f"{path} is a study of something else ({studies[0]!r}): pass another folder"
            )
        study = optuna.create_study(
            storage=storage,
            study_name="grid",
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=_pruner(optuna, pruner),
            direction="maximize",
            load_if_exists=True,
        )
        if studies and study.user_attrs.get(_ATTRIBUTE) != digest:
            raise ValueError(
                f"{path} is a study of other candidates, seeds or trainings: pass those of then, or another folder"
            )
        study.set_user_attr(_ATTRIBUTE, digest)
    return study


def _next(
    optuna: Any,
    study: Any,
    by_name: dict[str, Candidate],
    setting: Setting,
    seeds: int,
    trainer: Trainer,
) -> bool:
    """Train the first candidate that is neither finished nor being trained elsewhere; False if there is none."""
    with ExitStack() as claim:
        with trainer.store.alone():
            trial = _begin(optuna, study, by_name, trainer, claim)
        if trial is None:
            return False
        trainings = _trainings(by_name[trial.params[_PARAMETER]], setting, seeds)
        accuracies: list[float] = []
        for step, training in enumerate(trainings, start=1):
            accuracies.append(trainer.results([training])[0]["accuracy"])
            mean = sum(accuracies) / step
            if step not in trial.reported:
                trial.report(mean, step)
            if step < seeds and trial.should_prune():
                study.tell(trial.number, state=optuna.trial.TrialState.PRUNED)
                return True
        study.tell(trial.number, mean)
    return True


def _begin(
    optuna: Any, study: Any, by_name: dict[str, Candidate], trainer: Trainer, claim: ExitStack
) -> Any:
    """A trial of the next candidate, which ``claim`` keeps to this process; None if there is none.

    A trial that was interrupted is gone on with, so that it has competed once, and in its place in the order: the
    result is that of a search without interruption.
    """
    state = optuna.trial.TrialState
    begun = {_name(trial): trial for trial in study.get_trials(deepcopy=False)}
    for name in by_name:
        frozen = begun.get(name)
        if frozen is not None and frozen.state.is_finished():
            continue
        if not claim.enter_context(trainer.store.claimed(_key(name))):
            continue
        if frozen is None:
            study.enqueue_trial({_PARAMETER: name})
        if frozen is None or frozen.state == state.WAITING:
            trial = study.ask()
        else:
            trial = optuna.trial.Trial(study, frozen._trial_id)
        trial.suggest_categorical(_PARAMETER, list(by_name))
        trial.reported = set(frozen.intermediate_values) if frozen is not None else set()
        return trial
    return None


def _name(trial: Any) -> str | None:
    """Of a trial's candidate, also before it was asked for it."""
    fixed = trial.system_attrs.get("fixed_params", {})
    name: str | None = trial.params.get(_PARAMETER) or fixed.get(_PARAMETER)
    return name


@contextmanager
def _one_line_errors(optuna: Any, path: Path) -> Iterator[None]:
    """What SQLAlchemy and Optuna raise about the file, as a ValueError."""
    try:
        yield
    except Exception as error:
        module = type(error).__module__.partition(".")[0]
        if isinstance(error, (ValueError, OutOfTime)) or module not in (
            "sqlalchemy",
            "optuna",
            "sqlite3",
        ):
            raise
        reason = str(error.__cause__ or error).splitlines()[0]
        if "locked" in str(error):
            reason = "another process keeps it locked"
        raise ValueError(f"{path} cannot be used as an Optuna study: {reason}") from None
