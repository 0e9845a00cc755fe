"""The training loop: epochs of steps, validation after each, and a state on disk from which it can go on."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from effkernels.checkpoints import save_checkpoint
from effkernels.dispatch import use_backend
from effkernels.models import EfficientNet
from effkernels.preprocessing import Preprocessing
from effkernels.train import state as states
from effkernels.train.building import new_model
from effkernels.train.distillation import load_teacher
from effkernels.train.job import Job
from effkernels.train.loading import (
    Batch,
    Pictures,
    TrainingBatches,
    ValidationBatches,
    loader,
)
from effkernels.train.logs import CURVES, Board, draw_curves, write_table
from effkernels.train.memory import check_memory
from effkernels.train.optimisers import (
    Average,
    freeze,
    make_optimizer,
    make_scheduler,
    training_mode,
)
from effkernels.train.processes import Processes, joined
from effkernels.train.randomness import STEP, WEIGHTS, derive
from effkernels.train.recipe import Recipe
from effkernels.train.shards import ShardBatches, ShardSource, check_shards, shard_loader
from effkernels.train.splits import open_data
from effkernels.train.transforms import Mix, TrainingTransform, mixing, training_loss
from effkernels.train.validation import Scores, validate
from effkernels.train.watching import Result, Watch

# On a GPU the loss is looked at only so often: to read it, the CPU waits for all that it has queued.
_LOOK_EVERY = 50


def run(job: Job, watch: Watch | None = None) -> Result:
    """Train. Under torchrun, call it in each process.

    Leaves in ``job.output``: ``model.safetensors`` (the averaged weights, which ``weights=`` loads),
    ``resume.pt``, ``log.csv`` and ``curves.png``. The random state of the caller stays as it is.

    Raises:
        ValueError, TypeError: arguments, pictures or files that do not fit; a loss that is not finite. What was
            saved before stays.
        ImportError: a package that the recipe needs.
        OSError: a file that cannot be written, such as on a full disk.
    """
    device = torch.device(job.device)
    with (
        joined(device) as (processes, own),
        torch.random.fork_rng([own] if own.type == "cuda" else []),
        # Nothing else computes in float64.
        use_backend("torch") if job.dtype == torch.float64 else nullcontext(),
        warnings.catch_warnings(),
    ):
        # With float16 the optimiser leaves out steps until the scale of the loss fits, and the scheduler wonders.
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step")
        return _Training(job, processes, own, watch or Watch()).run()


class _Training:
    def __init__(self, job: Job, processes: Processes, device: torch.device, watch: Watch) -> None:
        self.job, self.processes, self.device, self.watch = job, processes, device, watch
        recipe = job.recipe
        self.path = job.output / states.RESUME
        if processes.first:
            states.check_folder(job.output)
        if self.path.exists() and not job.resume:
            raise ValueError(
                f"{self.path} exists: pass --resume to go on with that training, or another --output"
            )
        self.data = (
            open_data(job.data, job.validation, job.holdout, job.seed, job.subset)
            if isinstance(job.data, str)
            else job.data
        )
        self.classes = self.data.classes
        if isinstance(self.data.train, ShardSource):
            check_shards(self.data.train, processes.world, job.workers)
        self.steps = self._batches(0, 0).total // job.accumulate
        if not self.steps:
            raise ValueError(
                f"{len(self.data.train)} training pictures do not fill one step of {self._pictures()}: pass a "
                f"smaller --batch-size{' or --accumulate' if job.accumulate > 1 else ''}"
            )
        # What the recipe needs and is not installed is said at once.
        TrainingTransform(recipe, Preprocessing())
        mixing(recipe, len(self.classes))
        torch.manual_seed(derive(job.seed, WEIGHTS))
        self.model = self._model()
        self.teacher = self._teacher()
        if job.check_memory:
            check_memory(
                self.model.config,
                job.batch_size,
                self.model.preprocessing.size,
                device,
                num_classes=len(self.classes),
                activations=job.activations,
                parameters=job.dtype,
                averaged=recipe.ema > 0,
                processes=processes.local_world,
            )
        self.average = Average(self.model, recipe.ema) if recipe.ema else None
        self.optimizer = make_optimizer(self.model, recipe, self._pictures())
        self.scheduler = make_scheduler(self.optimizer, recipe, self.steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=job.precision == "float16")
        self.arguments = job.deciding(
            processes.world,
            {
                "training pictures": self.data.train.fingerprint(),
                "validation pictures": self.data.validation.fingerprint(),
            },
        )
        self.position = states.Position()
        self.history: list[dict[str, Any]] = []
        self.problems: dict[str, None] = {}
        self.saved: str | None = None
        if job.resume and self.path.exists():
            self._restore()
        self.loss = torch.tensor(self.position.loss, dtype=torch.float64, device=device)
        self.parallel: nn.Module = self.model
        if processes.world > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.parallel = DistributedDataParallel(self.model, device_ids=ids)
        needs = job.tensorboard and processes.first
        self.board = Board(job.output, self.position.epoch + 1) if needs else None

    def _model(self) -> EfficientNet:
        job, recipe = self.job, self.job.recipe
        model = new_model(
            job.model,
            len(self.classes),
            width=job.width,
            depth=job.depth,
            weights=job.weights,
            source=job.source,
            use_ema=job.use_ema,
            dropout=recipe.dropout,
            drop_path=recipe.drop_path,
            bn_momentum=recipe.bn_momentum,
            dtype=job.dtype,
        )
        if recipe.resolution is not None:
            model.preprocessing = replace(model.preprocessing, size=recipe.resolution)
        freeze(model, recipe)
        if job.sync_bn:
            convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm  # without annotations
            model = convert(model)
        return model.to(self.device)

    def _teacher(self) -> EfficientNet | None:
        job = self.job
        if job.teacher is None:
            return None
        # Random weights have no normalisation of their own: the student takes the teacher's.
        own = None if job.weights is None else self.model.preprocessing
        teacher = load_teacher(job.teacher, own, self.classes, self.device, job.dtype)
        if own is None:
            side = self.model.preprocessing.size
            self.model.preprocessing = replace(teacher.preprocessing, size=side)
        return teacher

    def _pictures(self) -> int:
        """Of one step, in all processes."""
        return self.job.batch_size * self.job.accumulate * self.processes.world

    def _batches(self, epoch: int, skip: int) -> TrainingBatches:
        return TrainingBatches(
            self.data.train,
            self.job.batch_size,
            seed=self.job.seed,
            epoch=epoch,
            rank=self.processes.rank,
            world=self.processes.world,
            skip=skip,
        )

    def _precision(self) -> AbstractContextManager[Any]:
        if self.job.precision in ("bfloat16", "float16"):
            return torch.autocast(self.device.type, self.job.activations)
        return nullcontext()

    def run(self) -> Result:
        if self.processes.first:
            states.remove_partial(self.job.output)
        while self.position.epoch < self.job.recipe.epochs:
            self._epoch()
        if self.board is not None:
            self.board.close()
        if self.processes.first and self.history and self.job.curves:
            self._curves()
        self.processes.wait()
        return Result(self.history, self.job.output, self.classes, list(self.problems))

    def _curves(self) -> None:
        try:
            draw_curves(self.history, self.job.output / CURVES)
        except ImportError as error:
            self.watch.note(str(error))

    def _epoch(self) -> None:
        job, position, started = self.job, self.position, time.perf_counter()
        recipe = job.recipe.at_epoch(position.epoch)
        training_mode(self.model, recipe)
        transform = TrainingTransform(recipe, self.model.preprocessing)
        mix = mixing(recipe, len(self.classes))
        self.watch.begin(position.epoch, position.step, self.steps)
        lr = self.optimizer.param_groups[-1]["lr"]
        read = self._read(transform)
        for step in range(position.step, self.steps):
            lr = self.optimizer.param_groups[-1]["lr"]
            loss = self._step(read, recipe, mix)
            position.step = step + 1
            position.pictures += self._pictures()
            looked = self.device.type == "cpu" or position.step % _LOOK_EVERY == 0
            if looked:
                self._check_loss()
            self.watch.step(self._pictures(), loss.item() if looked else None)
            if (
                job.save_every
                and position.step % job.save_every == 0
                and position.step < self.steps
            ):
                position.seconds += time.perf_counter() - started
                started = time.perf_counter()
                self._save()
        position.seconds += time.perf_counter() - started
        self._finish(lr)

    def _read(self, transform: TrainingTransform) -> Iterator[Batch]:
        """The batches that are left of this epoch."""
        job, source, epoch = self.job, self.data.train, self.position.epoch
        batches = self._batches(epoch, self.position.step * job.accumulate)
        if not isinstance(source, ShardSource):
            pictures = Pictures(source, transform, job.seed, replace=True)
            return iter(loader(pictures, batches, job.workers, self.device))
        streamed = ShardBatches(
            source,
            transform,
            job.batch_size,
            batches.total,
            seed=job.seed,
            epoch=epoch,
            rank=self.processes.rank,
            world=self.processes.world,
            skip=batches.skip,
        )
        return iter(shard_loader(streamed, job.workers, self.device))

    def _finish(self, lr: float) -> None:
        """Validate, and make the epoch a row of the history."""
        self._check_loss()
        position = self.position
        trained = self.processes.sum(self.loss.clone()).item() / position.pictures
        scores = self._validate()
        row = {
            "epoch": position.epoch + 1,
            "lr": lr,
            "train_loss": trained,
            **asdict(scores),
            "images_per_second": position.pictures / position.seconds,
            "seconds": position.seconds,
        }
        del row["pictures"]
        self.history.append(row)
        self.position = states.Position(position.epoch + 1)
        self.loss.zero_()
        self._save()
        if self.processes.first:
            write_table(self.history, self.job.output)
        if self.board is not None:
            self.board.add(row)
        self.watch.epoch(row)

    def _step(self, read: Iterator[Batch], recipe: Recipe, mix: Mix | None) -> Tensor:
        """One step of the optimiser; the mean loss of its pictures in this process."""
        job, position, total = self.job, self.position, self.loss.new_zeros(())
        for micro in range(job.accumulate):
            batch = next(read)
            self._report(batch)
            images = batch.images.to(self.device, job.dtype, non_blocking=True)
            labels = batch.labels.to(self.device, non_blocking=True)
            rank = self.processes.rank
            torch.manual_seed(derive(job.seed, STEP, position.epoch, position.step, micro, rank))
            if mix is not None:
                images, labels = mix(images, labels)
            images = images.contiguous(memory_format=torch.channels_last)
            with self._together(last=micro + 1 == job.accumulate):
                with self._precision():
                    told = self._told(images)
                    logits = self.parallel(images)
                loss = training_loss(logits, labels, recipe, told) / job.accumulate
                scaled: Any = self.scaler.scale(loss)
                scaled.backward()
            total += loss.detach()
        self._update(recipe)
        self.loss += total * job.batch_size * job.accumulate
        return total

    def _together(self, *, last: bool) -> AbstractContextManager[Any]:
        """Only the last of accumulated gradients are added up over processes."""
        if isinstance(self.parallel, DistributedDataParallel) and not last:
            return self.parallel.no_sync()
        return nullcontext()

    def _told(self, images: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        with torch.no_grad():
            told: Tensor = self.teacher(images)
        return told

    def _update(self, recipe: Recipe) -> None:
        if recipe.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _validate(self) -> Scores:
        model = self.model if self.average is None else self.average.module
        model.eval()
        source, processes = self.data.validation, self.processes
        # Each process has running statistics of its own batches: all validate what the first one saves.
        processes.share(model.buffers())
        pictures = Pictures(source, self.model.preprocessing, self.job.seed, replace=False)
        batches = ValidationBatches(
            source, self.job.batch_size, rank=processes.rank, world=processes.world
        )
        return validate(
            model,
            loader(pictures, batches, self.job.workers, self.device),
            self.device,
            self.job.dtype,
            processes,
            precision=self._precision,
            watch=self._report,
        )

    def _report(self, batch: Batch) -> None:
        """Tell of pictures that cannot be read, once each, and stop if there are too many."""
        for problem in batch.problems:
            if problem in self.problems:
                continue
            self.problems[problem] = None
            self.watch.problem(problem)
            if len(self.problems) > self.job.bad_pictures:
                raise ValueError(
                    f"{len(self.problems)} pictures cannot be read, more than --bad-pictures "
                    f"{self.job.bad_pictures}; the last one: {problem}"
                )
        if not len(batch.labels) and self.model.training:
            raise ValueError("none of the training pictures can be read")

    def _check_loss(self) -> None:
        if math.isfinite(self.loss.item()):
            return
        epoch, step = self.position.epoch + 1, self.position.step
        raise ValueError(
            f"the loss is {self.loss.item()} in step {step} of epoch {epoch}: {self._last_good()}. A lower lr or "
            f"a longer warm-up may help, or clip"
        )

    def _last_good(self) -> str:
        if self.saved is None:
            return "nothing was saved before it"
        return f"the last good checkpoint is {self.job.output / states.WEIGHTS}, {self.saved}"

    def _save(self) -> None:
        """Write the state, then the weights: after a kill between both, going on writes these anew."""
        self._check_loss()
        values = self.model.state_dict().values()
        if not torch.stack([value.isfinite().all() for value in values]).all():
            raise ValueError(
                f"weights or running statistics became NaN or inf before step {self.position.step + 1} of epoch "
                f"{self.position.epoch + 1}: {self._last_good()}"
            )
        position = replace(self.position, loss=self.processes.sum(self.loss.clone()).item())
        if self.processes.first:
            parts: dict[str, Any] = {
                "model": self.model,
                "optimizer": self.optimizer,
                "scheduler": self.scheduler,
                "scaler": self.scaler,
            }
            if self.average is not None:
                parts["average"] = self.average
            tensors = {name: part.state_dict() for name, part in parts.items()}
            written = states.State(
                self.arguments, position, tensors, self.history, list(self.problems)
            )
            states.save(written, self.path)
            self._write_weights()
        self.saved = f"after {position.epoch} epochs and {position.step} steps"

    def _write_weights(self) -> None:
        average = self.model if self.average is None else self.average.module
        assert isinstance(average, EfficientNet)
        average.preprocessing = self.model.preprocessing
        path = self.job.output / states.WEIGHTS
        scaled = (self.job.width, self.job.depth) != (1.0, 1.0)
        try:
            save_checkpoint(
                average,
                path,
                classes=self.classes,
                multipliers=(self.job.width, self.job.depth) if scaled else None,
            )
        except OSError as error:
            raise OSError(f"cannot write {path}, which is as it was before: {error}") from None

    def _restore(self) -> None:
        found = states.load(self.path)
        states.check_arguments(found.arguments, self.arguments, self.path)
        self.model.load_state_dict(found.tensors["model"])
        self.optimizer.load_state_dict(found.tensors["optimizer"])
        self.scheduler.load_state_dict(found.tensors["scheduler"])
        self.scaler.load_state_dict(found.tensors["scaler"])
        if self.average is not None:
            self.average.load_state_dict(found.tensors["average"])
        self.position, self.history = found.position, found.history
        self.problems = dict.fromkeys(found.problems)
        self.saved = f"after {self.position.epoch} epochs and {self.position.step} steps"
        if self.processes.first:
            self._write_weights()
        else:
            self.position = replace(self.position, loss=0.0)  # the first process has the sum of all
