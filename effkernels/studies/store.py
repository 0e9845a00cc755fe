"""What is trained already: a file of JSON lines that several processes may add to."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from effkernels.models import EfficientNet
from effkernels.studies.forecast import forecast, forecast_full
from effkernels.studies.full_size import FullPictures, Machine, train_full
from effkernels.studies.setting import Pictures, Setting
from effkernels.studies.training import Training, train_and_keep, train_network

_HEADER = {"effkernels": "trainings", "version": 1}
# Bytes of the lock file: while a line is written, for `alone`, and from the third one on a byte for each training.
_APPENDING, _ALONE, _FIRST_CLAIM = 0, 1, 2
_POLL_SECONDS = 0.2

Result = dict[str, Any]


class Store:
    """Results of trainings by their keys.

    Each line of the file is one training. A line is written whole and synced, so a kill loses what is being trained
    and nothing else; the rest of a line that a crash cut off is removed before the next is written. Who trains what
    is locked in ``NAME.lock`` beside the file: the system frees the lock of a killed process. Threads of one process
    must not share a file.

    Args:
        path: of the file; it is made with the first result.

    Raises:
        ValueError: the file is something else, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._results: dict[str, Result] = {}
        self._position = 0
        self.refresh()

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[Result]:
        return iter(list(self._results.values()))

    def get(self, training: Training) -> Result | None:
        """The result of a training, if it is finished."""
        return self._results.get(training.key)

    def refresh(self) -> None:
        """Read what was added since."""
        if not self.path.exists():
            return
        try:
            with self.path.open("rb") as file:
                file.seek(self._position)
                content = file.read()
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read: {error.strerror or error}") from None
        whole = content[: content.rfind(b"\n") + 1]
        if not whole and not self._position and not _line(_HEADER).startswith(content):
            raise ValueError(f"{self.path} is no store of trainings: {content[:60]!r}")
        for line in whole.splitlines():
            try:
                row = json.loads(line)
                if self._position == 0:
                    if row != _HEADER:
                        raise ValueError
                else:
                    self._results[row["key"]] = row
            except (ValueError, KeyError, TypeError):
                what = "is damaged" if self._position else "is no store of trainings"
                raise ValueError(f"{self.path} {what}: {line[:60]!r}") from None
            self._position += len(line) + 1

    def add(self, training: Training, result: Result) -> None:
        """Write a finished training.

        Raises:
            ValueError: the file cannot be written, or holds something else.
        """
        row = {"key": training.key, **training.to_json(), **result}
        with self._locked(_APPENDING):
            self.refresh()
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("r+b" if self.path.exists() else "xb") as file:
                    file.truncate(self._position)
                    file.seek(self._position)
                    if self._position == 0:
                        file.write(_line(_HEADER))
                    file.write(_line(row))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise ValueError(
                    f"{self.path} cannot be written: {error.strerror or error}"
                ) from None
        self.refresh()

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Whether this process may train what has this key: no other one does."""
        place = _FIRST_CLAIM + int(key, 16) % 2**61
        with self._lock_file() as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
                yield False
                return
            try:
                yield True
            finally:
                fcntl.lockf(file, fcntl.LOCK_UN, 1, place)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process is within such a block of this store."""
        with self._locked(_ALONE):
            yield

    @contextmanager
    def _locked(self, place: int) -> Iterator[None]:
        with self._lock_file() as file:
            fcntl.lockf(file, fcntl.LOCK_EX, 1, place)
            try:
                yield
            finally:
                fcntl.lockf(file, fcntl.LOCK_UN, 1, place)

    _open: int | None = None
    _users = 0

    # One file for all locks: closing any of them would free all of this process, says POSIX.
    @contextmanager
    def _lock_file(self) -> Iterator[int]:
        if self._open is None:
            path = self.path.with_name(f".{self.path.name}.lock")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._open = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None
        self._users += 1
        try:
            yield self._open
        finally:
            self._users -= 1
            if not self._users:
                os.close(self._open)
                self._open = None


def _line(row: Result) -> bytes:
    return json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n"


class OutOfTime(Exception):  # noqa: N818 - no error: what is done is kept, and the next call goes on
    """The time for this call is over; ``missing`` trainings are left."""

    def __init__(self, missing: int) -> None:
        super().__init__(
            f"time is over, and {missing} or more trainings are left: the same command goes on"
        )
        self.missing = missing


class Foretold(Exception):  # noqa: N818 - no error: what is left to do has been said, and nothing more was wanted
    """A study of a trainer that only forecasts ends with it."""


class Trainer:
    """Trains what a store does not have, until a time.

    Args:
        store: of results.
        seconds: from now on, after which no training begins; None for no limit.
        watch: called after each training with the number done and the number wanted.
        open_pictures: how to get the pictures of a setting; by default :class:`Pictures`, or those at full size.
        announce: is told by :meth:`expect` what a study is going to cost, in lines.
        machine: where networks at full size are trained.
        only_forecast: end with :class:`Foretold` once that is said.
    """

    def __init__(
        self,
        store: Store,
        seconds: float | None = None,
        watch: Callable[[int, int], None] | None = None,
        open_pictures: Callable[[Setting], Pictures] | None = None,
        announce: Callable[[str], object] | None = None,
        machine: Machine | None = None,
        only_forecast: bool = False,
    ) -> None:
        self.store = store
        self._announce = announce
        self._machine = machine or Machine()
        self._only_forecast = only_forecast
        self._watch = watch or (lambda done, wanted: None)
        self._open = open_pictures or (lambda setting: Pictures(setting))
        self._end = None if seconds is None else time.monotonic() + seconds
        self._pictures: dict[str, Pictures] = {}
        self._full: dict[str, FullPictures] = {}

    def expect(self, trainings: Sequence[Training], alike: Sequence[Training] = ()) -> None:
        """Announce what at most these will cost, but for those that are in the store.

        Args:
            trainings: that the study will want.
            alike: in the place of those that are not known before others are finished, ones of about their cost. They
                count while any of ``trainings`` is missing.

        Raises:
            ValueError: the pictures do not do, or a network at full size does not fit into memory.
            Foretold: nothing more was wanted.
        """
        self.store.refresh()
        missing = self._missing(trainings)
        if missing and self._announce is not None:
            for line in self._forecast([*missing, *alike]):
                self._announce(line)
        if self._only_forecast:
            raise Foretold

    def _forecast(self, missing: Sequence[Training]) -> list[str]:
        setting = missing[0].setting
        if setting.config is None:
            self.pictures(setting)  # an error in the data comes first
            return [forecast(missing, self.store)]
        if any(training.test for training in missing):
            _ = self.full_pictures(setting).test
        return forecast_full(missing, self.store, self.full_pictures(setting), self._machine)

    def results(self, trainings: Sequence[Training]) -> list[Result]:
        """The results of all of these, in their order; what another process is training is waited for.

        Raises:
            OutOfTime: some are left.
        """
        self.store.refresh()
        while missing := self._missing(trainings):
            self._watch(len(trainings) - len(missing), len(trainings))
            trained = False
            for training in missing:
                trained |= self._train(training, trainings)
            if not trained:
                self._check_time(len(missing))
                time.sleep(_POLL_SECONDS)
                self.store.refresh()
        self._watch(len(trainings), len(trainings))
        return [self.store._results[training.key] for training in trainings]

    def network(self, training: Training) -> tuple[Result, EfficientNet]:
        """The result of a training, and the trained network in eval mode.

        Weights are kept in the folder ``weights`` beside the store; where they are not there, it is trained.

        Raises:
            OutOfTime: the time is over and the network is not trained.
            ValueError: the weights cannot be written, or are damaged.
        """
        path = self.store.path.parent / "weights" / f"{training.key}.pt"
        with self._claim(training):
            self.store.refresh()
            result = self.store.get(training)
            if result is None or not path.exists():
                self._check_time(1)
                with self._made(training, keep=True) as (made, model):
                    assert model is not None
                    _write(model, path)
                    if result is None:
                        self.store.add(training, made)
                        result = made
        # From the file in any case: the network that was trained computes its layers in another way.
        setting = training.setting
        opened = self.pictures(setting) if setting.config is None else self.full_pictures(setting)
        return result, _loaded(training, len(opened.classes), opened.channels, path)

    def pictures(self, setting: Setting) -> Pictures:
        """Those of a setting, opened once."""
        return _once(self._pictures, setting, self._open)

    def full_pictures(self, setting: Setting) -> FullPictures:
        """Those of a setting at full size, opened once."""
        return _once(self._full, setting, FullPictures)

    def _missing(self, trainings: Sequence[Training]) -> list[Training]:
        # Several names of one network are one training.
        unique = {training.key: training for training in trainings}
        return [training for training in unique.values() if self.store.get(training) is None]

    def _check_time(self, missing: int) -> None:
        if self._end is not None and time.monotonic() > self._end:
            raise OutOfTime(missing)

    def _train(self, training: Training, trainings: Sequence[Training]) -> bool:
        """Whether the training was free, and is now finished."""
        with self.store.claimed(training.key) as free:
            if not free:
                return False
            self.store.refresh()
            if self.store.get(training) is not None:
                return True
            missing = self._missing(trainings)
            self._check_time(len(missing))
            with self._made(training) as (result, _):
                self.store.add(training, result)
        self._watch(len(trainings) - len(missing) + 1, len(trainings))
        return True

    @contextmanager
    def _claim(self, training: Training) -> Iterator[None]:
        """Wait until no other process trains this."""
        while True:
            with self.store.claimed(training.key) as free:
                if free:
                    yield
                    return
            self._check_time(1)
            time.sleep(_POLL_SECONDS)

    @contextmanager
    def _made(
        self, training: Training, *, keep: bool = False
    ) -> Iterator[tuple[Result, EfficientNet | None]]:
        """A training's result, with the network where it is to ``keep``. What an interrupted one at full size goes on
        from is removed afterwards: then the result is stored."""
        if training.setting.config is None:
            pictures = self.pictures(training.setting)
            if keep:
                yield train_and_keep(training, pictures)
            else:
                yield train_network(training, pictures), None
            return
        folder = self.store.path.parent / "unfinished" / training.key
        full = self.full_pictures(training.setting)
        yield train_full(training, full, folder, self._machine)
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # others are at work there
            folder.parent.rmdir()


_Opened = TypeVar("_Opened", Pictures, FullPictures)


def _once(
    opened: dict[str, _Opened], setting: Setting, open_: Callable[[Setting], _Opened]
) -> _Opened:
    name = json.dumps(setting.to_json())
    if name not in opened:
        opened[name] = open_(setting)
    return opened[name]


def _write(model: EfficientNet, path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), partial)
        os.replace(partial, path)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None


def _loaded(training: Training, classes: int, channels: int, path: Path) -> EfficientNet:
    model = training.architecture.build(classes, channels)
    try:
        model.load_state_dict(torch.load(path, weights_only=True))
    except Exception as error:  # whatever a damaged file makes of unpickling
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is damaged: {reason}; remove it") from None
    return model.eval()
