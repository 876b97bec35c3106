"""Describe the samples, networks and attacks behind a run's numbers, beside those of the paper."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.audits.config import Config
from experiments.papers.paper import Paper
from experiments.papers.record import Record
from experiments.papers.report import samples
from experiments.papers.wang2023.tables import IG, OF
from jaxattr.audit import spec

_NETWORKS = {
    "conv_net": "four convolutions and three dense layers",
    "resnet18": "ResNet-18",
    "efficientnet_lite0": "EfficientNet-Lite0, every ReLU6 replaced by two softplus",
}
# Labels of the attacks of every preset, and their constructors.
_ATTACKS = {"pgd": "pgd", "ifia": "ifia", "ascent": "ifia"}


def settings(_: Paper, record: Record) -> dict[str, Any]:
    """Return the values of the macro ``settings`` of the page's words; what a run does not have is left out there."""
    config = record.config
    ig, singular_value = _called(IG, spec.attributions(config)), _called("singular_value", spec.bounds(config, "l2"))
    ours = OF.select(record.lines)
    return {
        "preset": record.preset,
        "n": samples(ours),
        "ig": {} if ig is None else {"points": option(ig, "num_steps"), "rule": option(ig, "rule").replace("_", " ")},
        "attacks": attacks(config),
        "k": config.top_k,
        "confidence": "" if singular_value is None else f"{option(singular_value, 'confidence'):g}",
        "networks": networks(record.models.values()),
        "devices": ", ".join(ours["device"].unique().sort()),
    }


def attacks(config: Config) -> dict[str, Any]:
    """Return starts and steps of the paper's attacks and of the ascent; for other attacks their calls as ``others``."""
    found = spec.attacks(config)
    if {label: starts.call.name for label, starts in found.items()} != _ATTACKS:
        return {"others": ", ".join(f"{label} ({starts.count} x {starts.call})" for label, starts in found.items())}
    return {
        label: {"starts": starts.count, "steps": option(starts.call, "num_steps")} for label, starts in found.items()
    }


def _called(name: str, calls: Mapping[str, Any]) -> Any:
    """Return the call of a constructor that has its name as label; ``None`` where the run has something else."""
    found = calls.get(name)
    return found if found is not None and found.name == name else None


def option(call: Any, name: str) -> Any:
    """Return the value of an option of a call: the one that is given, or its default."""
    return call.arguments.get(name, inspect.signature(call.constructor).parameters[name].default)


def networks(models: Iterable[Mapping[str, Any]]) -> str:
    """Describe the networks that were explained.

    Args:
      models: excerpts of cards, from :class:`experiments.papers.record.Record`.
    """
    found = set()
    for model in models:
        about = model["network"]
        width = f" of width {about['width']}" if about["width"] else ""
        found.add(f"{_NETWORKS.get(about['name'], about['name'])}{width}, softplus of beta {about['beta']:g}")
    return "; ".join(sorted(found))
