"""``effkernels scale``: a network scaled by the compound formula, or to a budget."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from effkernels.analysis.budget import Scaled, scale_model
from effkernels.analysis.cost import ModelCost
from effkernels.analysis.free_scale import FreeFit, fit_free
from effkernels.cli.options import check_at_least_1, torch_dtype
from effkernels.cli.output import (
    check_output,
    console,
    facts,
    megabytes,
    number_table,
    print_json,
    print_wide,
    printable,
)
from effkernels.models.config import EfficientNetConfig
from effkernels.models.config_file import config_to_json, read_config, write_config
from effkernels.models.registry import get_config
from effkernels.models.scaling import ALPHA, BETA, GAMMA


def scale(
    *,
    base: str,
    phi: float | None,
    alpha: float | None,
    beta: float | None,
    gamma: float | None,
    macs: float | None,
    memory: float | None,
    batch_size: int,
    dtype: str,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Print the scaled network, and write it where requested; see ``effkernels scale --help``."""
    budget = not (macs is None and memory is None)
    if budget and phi is not None:
        raise ValueError("--phi and a budget contradict each other: pass one of them")
    if not budget and phi is None:
        raise ValueError("how far? pass --phi, or a budget by --macs or --memory")
    triple = {"alpha": alpha, "beta": beta, "gamma": gamma}
    given = {name: value for name, value in triple.items() if value is not None}
    if budget and given:
        named = ", ".join(f"--{name}" for name in given)
        raise ValueError(f"{named} is for --phi: a budget leaves depth, width and resolution free")
    check_at_least_1("--batch-size", batch_size)
    if output is not None:
        check_output(output, (".json",), force=force)
    network = read_config(base) if base.endswith(".json") else get_config(base)
    document: dict[str, Any]
    if phi is not None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            scaled = scale_model(
                network,
                phi=phi,
                alpha=given.get("alpha", ALPHA),
                beta=given.get("beta", BETA),
                gamma=given.get("gamma", GAMMA),
            )
        notes = [str(warning.message) for warning in caught]
        config, document = scaled.config, {**_scaled(scaled), "notes": notes}
    else:
        fitted = fit_free(
            macs, memory, batch_size=batch_size, dtype=torch_dtype(dtype), base=network
        )
        config, document = fitted.config, _fitted(fitted, batch_size)
    if output is not None:
        write_config(config, output)
    if as_json:
        print_json({**document, "config": config_to_json(config)})
        return
    if phi is not None:
        _print_scaled(scaled, notes)
    else:
        _print_fitted(fitted)
    if output is not None:
        console().print(printable(f"written to {output}"), soft_wrap=True)


def _costs(config: EfficientNetConfig, cost: ModelCost) -> dict[str, Any]:
    return {
        **asdict(config.coefficients),
        "parameters": cost.params,
        "macs": cost.macs,
    }


def _scaled(scaled: Scaled) -> dict[str, Any]:
    growth = scaled.scale
    return {
        "base": {"name": scaled.base.name, **_costs(scaled.base, scaled.base_cost)},
        "phi": growth.phi,
        "alpha": growth.alpha,
        "beta": growth.beta,
        "gamma": growth.gamma,
        "nominal_product": growth.constraint,
        "nominal_ratio": scaled.nominal_ratio,
        "realised_ratio": scaled.realised_ratio,
        **_costs(scaled.config, scaled.cost),
    }


def _print_scaled(scaled: Scaled, notes: list[str]) -> None:
    growth, cost, size = scaled.scale, scaled.cost, scaled.config.coefficients
    out = console()
    base = f"{scaled.base.name}, {scaled.base.resolution} pixels, {scaled.base_cost.macs:,} MACs"
    out.print(
        facts(
            {
                "base": base,
                "nominal product": f"{growth.constraint:.4g} = {growth.alpha:g} * {growth.beta:g}^2 * "
                f"{growth.gamma:g}^2 for each phi",
                "MACs ratio": f"{scaled.realised_ratio:.4g} realised, {scaled.nominal_ratio:.4g} nominal, at phi "
                f"{growth.phi:g}",
                "resolution": f"{size.resolution} pixels",
                "depth, width": f"{size.depth:.4g}, {size.width:.4g}",
                "parameters": f"{cost.params:,}",
                "MACs": f"{cost.macs:,}",
            }
        )
    )
    for note in notes:
        out.print(printable(note, "yellow"), soft_wrap=True)


def _fitted(found: FreeFit, batch_size: int) -> dict[str, Any]:
    other, law = found.compound, asdict(found.law)
    return {
        "factors": {
            "depth": found.depth,
            "width": found.width,
            "resolution": found.resolution,
        },
        **_costs(found.config, found.cost),
        "memory": found.memory,
        "batch_size": batch_size,
        "accuracy": found.accuracy,
        "extrapolated": found.extrapolated,
        "compound": {
            "phi": other.phi,
            **_costs(other.config, other.cost),
            "memory": other.memory,
            "accuracy": found.compound_accuracy,
        },
        "law": {**law, "rms": found.law.rms},
    }


def _print_fitted(found: FreeFit) -> None:
    other, law = found.compound, found.law
    grid = number_table([""], ["depth", "width", "pixels", "parameters", "MACs", "memory", "top-1"])
    for name, config, cost, memory, accuracy in (
        ("free", found.config, found.cost, found.memory, found.accuracy),
        (f"phi {other.phi:.4f}", other.config, other.cost, other.memory, found.compound_accuracy),
    ):
        size = config.coefficients
        grid.add_row(
            name,
            f"{size.depth:.3f}",
            f"{size.width:.3f}",
            str(size.resolution),
            f"{cost.params:,}",
            f"{cost.macs:,}",
            megabytes(memory),
            "" if accuracy is None else f"{accuracy:.1f}",
        )
    print_wide(grid)
    out = console()
    out.print(
        printable(
            f"\nfree: the best by the law error = {law.floor:.1f} + {law.scale:.1f} * size^-{law.q:.2f}, fitted to the "
            f"paper's Tables 2 and 7 within {law.rms:.2f} percentage points (root mean square). phi: the largest "
            "compound scale with the paper's triple. top-1: predicted by the law."
        )
    )
    if found.extrapolated:
        out.print(printable("a factor is beyond those that the law was fitted to", "yellow"))
