"""The variation groups of the muon channels: which payloads each needs, how it is made, which data sets it concerns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from binworks.corrections import (
    efficiency,
    electroweak,
    momentum_scale,
    resolution,
    theory,
    z_closure,
)
from binworks.corrections.efficiency import STEPS
from binworks.corrections.sets import CorrectionSet
from binworks.processors.dataset import Dataset
from binworks.tensors.groups import angular as angular_group
from binworks.tensors.groups import bootstrap as bootstrap_group
from binworks.tensors.groups import efficiency as efficiency_group
from binworks.tensors.groups import electroweak as electroweak_group
from binworks.tensors.groups import mass as mass_group
from binworks.tensors.groups import momentum_scale as scale_group
from binworks.tensors.groups import pdf as pdf_group
from binworks.tensors.groups import pileup as pileup_group
from binworks.tensors.groups import prefire as prefire_group
from binworks.tensors.groups import ratios as ratios_group
from binworks.tensors.groups import resolution as resolution_group
from binworks.tensors.groups import theory as theory_group
from binworks.tensors.groups.base import Layout, VariationGroup

Concerns = Literal["simulation", "boson", "W", "Z"]


@dataclass(frozen=True)
class Setting:
    """What the groups of a channel are made from.

    Parameters
    ----------
    corrections : CorrectionSet or None
        The job's; a group's payloads are there when it is made.
    boson : "W" or "Z"
        Which one the channel measures.
    pdf_members, replicas : int
        Options.
    """

    corrections: CorrectionSet | None
    boson: Literal["W", "Z"]
    pdf_members: int
    replicas: int

    @property
    def payloads(self) -> CorrectionSet:
        """The correction set, where a group is made that needs one."""
        if self.corrections is None:
            raise TypeError("a group with payloads was asked for without a correction set")
        return self.corrections

    @property
    def layout(self) -> Layout:
        """One muon's eta is an axis, two muons' are not."""
        return "own" if self.boson == "W" else "spread"

    @property
    def charges(self) -> tuple[int, ...]:
        """Those of the bosons that the channel's theory must know."""
        return (-1, 0, 1) if self.boson == "W" else (0,)


@dataclass(frozen=True)
class Systematic:
    """A group that can be asked for.

    Parameters
    ----------
    make : callable
        Setting -> group.
    payloads : tuple of str
        What the correction set must have.
    concerns : str
        All simulation, any boson, or one of them; nothing varies data.
    by_name_only : bool
        Not made unless asked for.
    """

    make: Callable[[Setting], VariationGroup]
    payloads: tuple[str, ...] = ()
    concerns: Concerns = "simulation"
    by_name_only: bool = False

    def varies(self, dataset: Dataset) -> bool:
        """Whether the group varies that data set."""
        if dataset.is_data:
            return False
        if self.concerns == "boson":
            return dataset.boson is not None
        return self.concerns == "simulation" or dataset.boson == self.concerns


def systematics(boson: Literal["W", "Z"]) -> Mapping[str, Systematic]:
    """Return the groups of a channel that measures the W (one muon) or the Z (two), by name."""
    steps = {f"efficiency_{s}": Systematic(partial(_efficiency, s), (f"efficiency_{s}",)) for s in STEPS}
    measured = {mass_group.NAME: Systematic(lambda _: mass_group.group(), concerns="W")}
    lost = {
        "veto_stat": Systematic(partial(_efficiency, "veto"), ("efficiency_veto",), "Z"),
        ratios_group.VETO: Systematic(_veto, ("efficiency_veto",), "Z"),
    }
    width = {mass_group.WIDTH_W: Systematic(lambda _: mass_group.width_group("W"), concerns="W")}
    one = boson == "W"
    return {
        **(measured if one else {}),
        mass_group.MASS_Z: Systematic(lambda _: mass_group.z_group(measured=not one), concerns="Z"),
        **(width if one else {}),
        mass_group.WIDTH_Z: Systematic(lambda _: mass_group.width_group("Z"), concerns="Z"),
        mass_group.SIN2THETA: Systematic(lambda _: mass_group.sin2theta_group(), concerns="Z"),
        pdf_group.NAME: Systematic(lambda s: pdf_group.group(s.pdf_members), concerns="boson"),
        theory_group.NAME: Systematic(
            lambda s: theory_group.group(theory_names(s)), ("theory",), concerns="boson"
        ),
        angular_group.NAME: Systematic(lambda _: angular_group.group(by_charge=one), ("angular",), boson),
        electroweak_group.NAME: Systematic(
            lambda s: electroweak_group.group(electroweak_names(s)), ("ew",), concerns="boson"
        ),
        **steps,
        ratios_group.EFFICIENCY: Systematic(_alternatives, tuple(steps)),
        **(lost if one else {}),
        scale_group.NAME: Systematic(_scale, ("momentum_scale", "response")),
        scale_group.CLOSURE: Systematic(_closure, ("z_closure", "response")),
        scale_group.MZ: Systematic(_mz, ("z_closure", "response")),
        resolution_group.NAME: Systematic(_resolution, ("resolution", "response")),
        ratios_group.PIXEL_HITS: Systematic(lambda s: ratios_group.pixel_hits(s.layout), ("pixel_hits",)),
        prefire_group.NAME: Systematic(lambda _: prefire_group.group(), ("prefire",)),
        pileup_group.NAME: Systematic(lambda _: pileup_group.group(), ("pileup",), by_name_only=True),
        bootstrap_group.NAME: Systematic(lambda s: bootstrap_group.group(s.replicas), by_name_only=True),
    }


def theory_names(setting: Setting) -> tuple[str, ...]:
    """Return the theory variations that change anything in the channel."""
    table, names = theory.load(setting.payloads)
    return theory.names_for(table, names, setting.charges)


def electroweak_names(setting: Setting) -> tuple[str, ...]:
    """Return the electroweak variations that change anything in the channel."""
    table, names = electroweak.load(setting.payloads)
    return electroweak.names_for(table, names, setting.charges)


def _efficiency(step: str, setting: Setting) -> VariationGroup:
    layout: Layout = "spread" if step == "veto" else setting.layout
    return efficiency_group.group(step, efficiency.load(setting.payloads, step).covariance, layout)


def _alternatives(setting: Setting) -> VariationGroup:
    known = {step: efficiency.load(setting.payloads, step).alternatives for step in STEPS}
    sources = [f"{step}_{name}" for step, names in known.items() for name in names]
    return ratios_group.efficiency(sources, setting.layout)


def _veto(setting: Setting) -> VariationGroup:
    return ratios_group.veto(efficiency.load(setting.payloads, "veto").alternatives)


def _scale(setting: Setting) -> VariationGroup:
    covariance = momentum_scale.load(setting.payloads, is_data=False)[1]
    return scale_group.group(covariance, setting.layout)


def _closure(setting: Setting) -> VariationGroup:
    return scale_group.closure_group(z_closure.load(setting.payloads)[0], setting.layout)


def _mz(setting: Setting) -> VariationGroup:
    return scale_group.mz_group(z_closure.load(setting.payloads)[1], setting.layout)


def _resolution(setting: Setting) -> VariationGroup:
    return resolution_group.group(resolution.load_covariance(setting.payloads), setting.layout)
