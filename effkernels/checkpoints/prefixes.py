"""Finds the network in a state dict: the prefix of its keys, and which keys do not belong to it.

Wrappers and training code put prefixes before a network's keys: ``module.`` (DataParallel, DDP), ``_orig_mod.``
(torch.compile, also in the middle, where a part is compiled), ``model.``, ``net.``, ``backbone.`` or anything else (a
module that holds the network). They also add tensors that are not the network's (``criterion.pos_weight``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from effkernels.checkpoints.formats import EFFKERNELS, FORMATS
from effkernels.checkpoints.layout import Format

# Components that torch.compile, FSDP and activation checkpointing insert into keys where they wrap a part.
_INSERTED = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_USUAL = ("module.", "model.", "net.", "network.", "backbone.", "encoder.")
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|averaged)(?:[._]|$)")


def without_inserted(keys: Iterable[str]) -> dict[str, str]:
    """Each key without the components that wrappers inserted -> the key itself.

    If two keys would become equal, all keys stay as they are.
    """
    actual = list(keys)
    plain = {_INSERTED.sub("", key): key for key in actual}
    return plain if len(plain) == len(actual) else {key: key for key in actual}


@dataclass(frozen=True)
class Network:
    """The keys of a state dict that belong to the network.

    ``prefix`` comes before its keys, ``others`` are the keys that do not belong to it, ``averaged`` says
    whether the prefix marks it as a moving average.
    """

    prefix: str
    others: tuple[str, ...]
    averaged: bool


def find_network(
    keys: Collection[str], origin: str, *, use_ema: bool | None = None
) -> Network | None:
    """The network whose keys fit a known format best; None if there is none.

    ``use_ema`` chooses between a network and its moving average (a prefix with ``ema`` in it).

    Args:
        keys: without the components that wrappers inserted.
        origin: how errors name the checkpoint.
        use_ema: True for the averaged weights, False for the trained ones; None: an error if there are both.

    Raises:
        ValueError: several networks fit equally well.
    """
    found = networks = _networks(keys, FORMATS.values())
    if use_ema is not None:
        found = {p: n for p, n in networks.items() if _averaged(p) == use_ema} or networks
    if not found:
        return None
    best = [prefix for prefix, fits in found.items() if fits == max(found.values())]
    if len(best) > 1:
        names = " and ".join(repr(prefix) for prefix in best)
        if use_ema is None and sum(map(_averaged, best)) == 1 and len(best) == 2:
            raise ValueError(
                f"{origin} holds a network and its average, under the prefixes {names}: pass "
                f"use_ema=True to take the averaged weights, or use_ema=False"
            )
        raise ValueError(
            f"{origin} holds {len(best)} networks, under the prefixes {names}: pass the entries of "
            f"one as weights, for instance those whose names start with {best[-1]!r}"
        )
    prefix = best[0]
    others = tuple(key for key in keys if not _owns(prefix, networks, key))
    return Network(prefix, others, _averaged(prefix))


def shared_prefix(keys: Collection[str]) -> str:
    """The prefix that usual wrappers put before all keys, such as ``module.model.``; empty if there is none."""
    prefix = ""
    while keys:
        longer = [prefix + p for p in _USUAL if all(k.startswith(prefix + p) for k in keys)]
        if not longer:
            break
        prefix = longer[0]
    return prefix


def own_network(keys: Collection[str]) -> dict[str, str]:
    """The keys of a network of this package within a module's state dict.

    Returns:
        Key in the effkernels format -> key in the module.

    Raises:
        ValueError: the module holds several networks.
    """
    plain = without_inserted(keys)
    found = _networks(plain, [EFFKERNELS])
    best = [p for p, fits in found.items() if fits == max(found.values())]
    prefix = min(best, key=len) if best else shared_prefix(plain)
    if not all(other.startswith(prefix) for other in best):
        raise ValueError(
            f"the model holds {len(best)} networks, under the prefixes "
            f"{' and '.join(map(repr, best))}: pass one of them, or its state dict"
        )
    return {
        key[len(prefix) :]: actual for key, actual in plain.items() if _owns(prefix, found, key)
    }


def _owns(prefix: str, networks: Collection[str], key: str) -> bool:
    """Whether a key lies under a network's prefix and not under that of another network nested in it."""
    inner = tuple(p for p in networks if p != prefix and p.startswith(prefix))
    return key.startswith(prefix) and not key.startswith(inner)


def _averaged(prefix: str) -> bool:
    return _AVERAGED.search(prefix) is not None


def _networks(keys: Collection[str], formats: Iterable[Format]) -> dict[str, int]:
    """Prefix of each network -> how many of its keys belong to the format that fits best.

    A network is found by the key of its stem's weight, and counts if at least half of the keys under its prefix fit.
    """
    fitting: dict[str, int] = {}
    for fmt in formats:
        stem = f"{fmt.stem_conv}.weight"
        for key in keys:
            if key != stem and not key.endswith(f".{stem}"):
                continue
            prefix = key[: -len(stem)]
            under = [k[len(prefix) :] for k in keys if k.startswith(prefix)]
            fits = sum(fmt.locate(k) is not None for k in under)
            if 2 * fits >= len(under):
                fitting[prefix] = max(fitting.get(prefix, 0), fits)
    return fitting
