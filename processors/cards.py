"""The card that a fit of a processor's histograms starts from, as in the published measurement where there is one.

Sizes of the normalisations: 1.2 % is the luminosity's of 2016 after the change of the tracker's electronics; 6 % top,
16 % dibosons, 15 % all other backgrounds of a Z and a factor of 2 for photon-induced pairs are those of the public
WRemnants framework (tag ``published``), as are the closure factor of the nonprompt estimate, 0.85, its size, 5 %, and
its shape, 0.1. The statistical uncertainty of simulation is inflated by 1.25 for the W only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from binworks.tensors.card import Card, Nonprompt, Norm, Rule

BACKGROUND = "CMS_background"
LUMINOSITY = Norm(name="luminosity", processes=("*",), size=1.012, groups=("luminosity",))
PHOTON_INDUCED = Norm(
    name="CMS_PhotonInduced",
    processes=("PhotonInduced",),
    size=2.0,
    groups=(BACKGROUND,),
    optional=True,
    subtracted=False,
)
TOP = PHOTON_INDUCED.model_copy(update={"name": "CMS_Top", "processes": ("Top",), "size": 1.06})
DIBOSON = PHOTON_INDUCED.model_copy(update={"name": "CMS_VV", "processes": ("Diboson",), "size": 1.16})
OTHER = PHOTON_INDUCED.model_copy(
    update={
        "name": BACKGROUND,
        "processes": ("Other", "Top", "Diboson", "DYlowMass", "W*"),
        "size": 1.15,
    }
)

AVERAGE = (Rule(match="*", symmetrise="average"),)
"""What the groups leave as pairs is nearly symmetric, and a tensor without halves of differences is half as large."""

CARDS: Mapping[str, Card] = {
    "w_mass": Card(
        norms=(LUMINOSITY, PHOTON_INDUCED, TOP, DIBOSON),
        rules=AVERAGE,
        inflation=1.25,
        nonprompt=Nonprompt(),
    ),
    "z_wlike": Card(norms=(LUMINOSITY, PHOTON_INDUCED, OTHER), rules=AVERAGE),
    "z_dilepton": Card(norms=(LUMINOSITY, PHOTON_INDUCED, OTHER), rules=AVERAGE),
}


def default_card(processor: str, *, groups: Collection[str] | None = None, data: bool = True) -> Card:
    """Return the card that a fit starts from; an empty one for a processor that is not in the table.

    The nonprompt estimate is in it only where it can be made and nothing else stands for it: with data, and without a
    simulated process of that name.

    Parameters
    ----------
    processor : str
        Registry name.
    groups : collection of str, optional
        Processes that the job simulates; none given: not known.
    data : bool
        Whether the job has data.
    """
    card = CARDS.get(processor, Card())
    if card.nonprompt is not None and not (data and card.nonprompt.process not in (groups or ())):
        return card.model_copy(update={"nonprompt": None})
    return card
