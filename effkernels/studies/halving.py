"""Trains the candidates of the grid search, and lets Optuna stop those that fall behind.

What is rationed is seeds: a candidate's accuracy after its first, first two, first four ... seeds is compared with that
of the others, and the worse half is pruned (successive halving, Li et al. 2018, arXiv 1810.05934). A training takes
seconds, and differs more between seeds than between its last epochs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
) -> list[Trained]:
    """Train ``candidates``; all of a pruned one's seeds that were trained count as well.

    Args:
        candidates: at least one; the first ones are trained first.
        setting: of the trainings.
        trainer: with the store; several processes may share that and ``path``.
        path: Optuna's study, an SQLite file. A study that was interrupted goes on.
        seeds: of a candidate that is not pruned.
        pruner: ``halving``, ``median`` (below the median of the others at as many seeds) or ``none``.

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
    by_name = {str(candidate.triple): candidate for candidate in candidates}
    with _one_line_errors(optuna, path):
        study = _open(optuna, path, pruner, by_name, setting, seeds, trainer)
        while _next(optuna, study, by_name, setting, seeds, trainer):
            pass
    return [trained for c in candidates if (trained := _trained(c, setting, seeds, trainer))]


def _key(name: str) -> str:
    return hashlib.sha256(f"trial {name}".encode()).hexdigest()[:16]


def _trainings(candidate: Candidate, setting: Setting, seeds: int) -> list[Training]:
    return [Training(candidate.architecture, setting, seed) for seed in range(seeds)]


def _trained(
    candidate: Candidate, setting: Setting, seeds: int, trainer: Trainer
) -> Trained | None:
    rows = []
    for training in _trainings(candidate, setting, seeds):
        row = trainer.store.get(training)
        if row is None:
            break
        rows.append(row)
    if not rows:
        return None
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
    """The study, with a waiting trial for each candidate that is neither finished nor being trained."""
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
        _queue(optuna, study, by_name, trainer)
    return study


def _queue(optuna: Any, study: Any, by_name: dict[str, Candidate], trainer: Trainer) -> None:
    state = optuna.trial.TrialState
    taken = set()
    for trial in study.get_trials(deepcopy=False):
        name = trial.params.get(_PARAMETER) or trial.system_attrs.get("fixed_params", {}).get(
            _PARAMETER
        )
        if trial.state == state.RUNNING:
            # Whoever trains it holds a lock; without one its process was killed.
            with trainer.store.claimed(_key(str(name))) as free:
                if free:
                    study.tell(trial.number, state=state.FAIL)
                    continue
        if trial.state != state.FAIL:
            taken.add(name)
    for name in by_name:
        if name not in taken:
            study.enqueue_trial({_PARAMETER: name})


def _next(
    optuna: Any,
    study: Any,
    by_name: dict[str, Candidate],
    setting: Setting,
    seeds: int,
    trainer: Trainer,
) -> bool:
    """Train the next candidate in the queue; False if there is none."""
    state = optuna.trial.TrialState
    with trainer.store.alone():
        if not study.get_trials(deepcopy=False, states=(state.WAITING,)):
            return False
        trial = study.ask()
        name = trial.suggest_categorical(_PARAMETER, list(by_name))
        claim = trainer.store.claimed(_key(name))
        claim.__enter__()
    try:
        accuracies: list[float] = []
        for step, training in enumerate(_trainings(by_name[name], setting, seeds), start=1):
            try:
                accuracies.append(trainer.results([training])[0]["accuracy"])
            except OutOfTime:
                study.tell(trial, state=state.FAIL)
                study.enqueue_trial({_PARAMETER: name})
                raise
            mean = sum(accuracies) / step
            trial.report(mean, step)
            if step < seeds and trial.should_prune():
                study.tell(trial, state=state.PRUNED)
                return True
        study.tell(trial, mean)
    finally:
        claim.__exit__(None, None, None)
    return True


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
