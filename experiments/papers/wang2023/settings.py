"""Describe the samples, networks and attacks behind a run's numbers, beside those of the paper."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.papers.paper import Paper
from experiments.papers.record import Record
from experiments.papers.report import samples
from experiments.papers.wang2023.tables import IG
from jaxattr.audit import spec

_NETWORKS = {
    "conv_net": "four convolutions and three dense layers",
    "resnet18": "ResNet-18",
    "efficientnet_lite0": "EfficientNet-Lite0, every ReLU6 replaced by two softplus",
}


def settings(_: Paper, record: Record) -> dict[str, Any]:
    """Return the values of the macro ``settings`` of the page's words."""
    config = record.config
    ig = spec.attributions(config)[IG]
    attacks = {
        name: {"starts": starts.count, "steps": option(starts.call, "num_steps")}
        for name, starts in spec.attacks(config).items()
    }
    return {
        "preset": record.preset,
        "n": samples(record.lines),
        "ig": {"points": option(ig, "num_steps"), "rule": option(ig, "rule").replace("_", " ")},
        **{name: attacks[name] for name in ("pgd", "ifia", "ascent")},
        "k": config.top_k,
        "confidence": f"{option(spec.bounds(config, 'l2')['singular_value'], 'confidence'):g}",
        "networks": networks(record.models.values()),
        "devices": ", ".join(record.lines["device"].unique().sort()),
    }


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
