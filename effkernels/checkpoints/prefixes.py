"""Where in a state dict the network stands: under which prefix, beside what else.

Wrappers and training code put names before a network's own: ``module.`` (DataParallel, DDP), ``_orig_mod.``
(torch.compile, also in the middle, of a compiled part), ``model.``, ``net.``, ``backbone.`` or anything else (a module
that holds the network), and they put other tensors beside it (``criterion.pos_weight``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from effkernels.checkpoints.formats import EFFKERNELS, FORMATS, Format

# Components of a key that torch.compile, FSDP and activation checkpointing insert wherever they wrap a part.
_INSERTED = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_USUAL = ("module.", "model.", "net.", "network.", "backbone.", "encoder.")
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|averaged)(?:[._]|$)")


def without_inserted(keys: Iterable[str]) -> dict[str, str]:
    """Each key without what wrappers inserted -> the key as it is.

    Where two keys would become one, all stay as they are.
    """
    actual = list(keys)
    plain = {_INSERTED.sub("", key): key for key in actual}
    return plain if len(plain) == len(actual) else {key: key for key in actual}


@dataclass(frozen=True)
class Network:
    """Which of a state dict's keys are the network's.

    ``prefix`` stands before its keys, ``others`` are the keys that are not its own, ``averaged`` says
    whether the prefix names it a moving average.
    """

    prefix: str
    others: tuple[str, ...]
    averaged: bool


def find_network(
    keys: Collection[str], origin: str, *, use_ema: bool | None = None
) -> Network | None:
    """The network whose keys fit a known format best; None where there is none.

    Of a network and its moving average (a prefix with ``ema`` in it), ``use_ema`` chooses.

    Args:
        keys: without what wrappers inserted.
        origin: named in errors.
        use_ema: take the averaged weights, or (False) the plain ones; None: ask where there are both.

    Raises:
        ValueError: several networks, none of which fits better than the others.
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
            f"one as weights, such as those whose names start with {best[-1]!r}"
        )
    prefix = best[0]
    others = tuple(key for key in keys if not _owns(prefix, networks, key))
    return Network(prefix, others, _averaged(prefix))


def shared_prefix(keys: Collection[str]) -> str:
    """What usual wrappers put before all keys, such as ``module.model.``; empty if nothing."""
    prefix = ""
    while keys:
        longer = [prefix + p for p in _USUAL if all(k.startswith(prefix + p) for k in keys)]
        if not longer:
            break
        prefix = longer[0]
    return prefix


def own_network(keys: Collection[str]) -> dict[str, str]:
    """A network of this package inside a module, by the keys of the module's state dict.

    Returns:
        The network's keys in the effkernels format -> in the module.

    Raises:
        ValueError: the module holds several.
    """
    plain = without_inserted(keys)
    found = _networks(plain, [EFFKERNELS])
    best = [p for p, fits in found.items() if fits == max(found.values())]
    prefix = min(best, key=len) if best else shared_prefix(plain)
    if not all(other.startswith(prefix) for other in best):
        raise ValueError(
            f"the model holds {len(best)} networks, under the prefixes "
            f"{' and '.join(map(repr, best))}: pass the one that is meant, or its state dict"
        )
    return {
        key[len(prefix) :]: actual for key, actual in plain.items() if _owns(prefix, found, key)
    }


def _owns(prefix: str, networks: Collection[str], key: str) -> bool:
    """Whether a key stands under a network's prefix, and under none of another network inside of it."""
    inner = tuple(p for p in networks if p != prefix and p.startswith(prefix))
    return key.startswith(prefix) and not key.startswith(inner)


def _averaged(prefix: str) -> bool:
    return _AVERAGED.search(prefix) is not None


def _networks(keys: Collection[str], formats: Iterable[Format]) -> dict[str, int]:
    """Prefix of each network -> how many keys under it fit the format that they fit best.

    A network is found by the weight of its stem, and is one where half the keys under its prefix fit.
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
