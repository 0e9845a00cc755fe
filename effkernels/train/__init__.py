"""Training: recipes as data, pictures, the loop, and what it leaves. Also the command ``effkernels train``.

    from effkernels import train

    recipe = train.recipe_for("efficientnet_lite0", "transfer", epochs=5)
    job = train.Job("efficientnet_lite0", "flowers/", Path("runs/flowers"), recipe, weights="imagenet")
    train.run(job)

Optimisers, transforms and pictures of curves come from timm, torchvision and matplotlib, which are imported when
they are needed: ``pip install "effkernels[train]"``.
"""

from effkernels.train.evaluation import Calibration, Evaluation, evaluate, match_classes
from effkernels.train.hugging_face import HuggingFaceSource
from effkernels.train.job import Job
from effkernels.train.loop import run
from effkernels.train.optimisers import Average
from effkernels.train.recipe import RECIPES, Recipe, recipe_for
from effkernels.train.shards import ShardSource
from effkernels.train.sources import ArraySource, FolderSource, Source, Subset
from effkernels.train.splits import Data, open_data
from effkernels.train.validation import Scores
from effkernels.train.watching import Result, Watch

__all__ = [
    "RECIPES",
    "ArraySource",
    "Average",
    "Calibration",
    "Data",
    "Evaluation",
    "FolderSource",
    "HuggingFaceSource",
    "Job",
    "Recipe",
    "Result",
    "Scores",
    "ShardSource",
    "Source",
    "Subset",
    "Watch",
    "evaluate",
    "match_classes",
    "open_data",
    "recipe_for",
    "run",
]
