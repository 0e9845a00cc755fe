"""The paper's experiments on networks small enough to train in seconds. Also the command ``effkernels study``.

    from pathlib import Path
    from effkernels import studies

    trainer = studies.Trainer(studies.Store(Path("runs/trainings.jsonl")))
    found = studies.candidates(studies.grid())
    document = studies.grid_search(found, studies.Setting(), trainer, Path("runs/grid.db"),
                                   constraint="nominal", target=2.0, tolerance=0.1)

Networks are B0's blocks on Fashion-MNIST, or on a folder of pictures, at 14 to 28 pixels (:func:`small_config`); or any
configuration, scaled, on a folder's pictures at their full size (:meth:`Setting.full`, :class:`Machine`). A finished
training is in the :class:`Store` and is never done again, whichever study wants it. The grid search needs Optuna and
pictures need matplotlib, which are imported when they are needed: ``pip install "effkernels[studies]"``; crops and
augmentation at full size need torchvision: ``pip install "effkernels[train]"``.
"""

from effkernels.studies.architecture import Architecture, small_config
from effkernels.studies.base import SMALL, Base
from effkernels.studies.comparison import Point, compare, points
from effkernels.studies.evolution import evolve, random_search, reward
from effkernels.studies.full_size import FullPictures, Machine
from effkernels.studies.grid_study import grid_search
from effkernels.studies.grids import Candidate, Triple, candidates, grid
from effkernels.studies.halving import Trained, search
from effkernels.studies.judging import judge
from effkernels.studies.latencies import Latencies, latency
from effkernels.studies.live import live_search
from effkernels.studies.maps import maps_study
from effkernels.studies.replaying import replay, search_study, trained_table
from effkernels.studies.setting import Pictures, Setting
from effkernels.studies.space import MNAS, TABLED, Decision, SearchSpace
from effkernels.studies.statistics import Estimate, PowerLaw, fit_power_law
from effkernels.studies.store import Foretold, OutOfTime, Store, Trainer
from effkernels.studies.training import Training, train_network
from effkernels.studies.widths import width_sweep

__all__ = [
    "MNAS",
    "SMALL",
    "TABLED",
    "Architecture",
    "Base",
    "Candidate",
    "Decision",
    "Estimate",
    "Foretold",
    "FullPictures",
    "Latencies",
    "Machine",
    "OutOfTime",
    "Pictures",
    "Point",
    "PowerLaw",
    "SearchSpace",
    "Setting",
    "Store",
    "Trained",
    "Trainer",
    "Training",
    "Triple",
    "candidates",
    "compare",
    "evolve",
    "fit_power_law",
    "grid",
    "grid_search",
    "judge",
    "latency",
    "live_search",
    "maps_study",
    "points",
    "random_search",
    "replay",
    "reward",
    "search",
    "search_study",
    "small_config",
    "train_network",
    "trained_table",
    "width_sweep",
]
