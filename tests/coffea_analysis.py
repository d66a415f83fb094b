"""A physicist's existing coffea processor, as found in the wild; knows nothing of binworks."""

from __future__ import annotations

from typing import Any

import awkward as ak
import hist
from coffea import processor


class Analysis(processor.ProcessorABC):
    """Leading muons by trigger, with a category axis that grows."""

    def __init__(self, min_pt: float = 20.0, output: str = "good") -> None:
        self.min_pt, self.output = min_pt, output

    def process(self, events: Any) -> dict[str, Any]:
        if self.output == "list":
            return {"numbers": [1, 2, 3]}
        h = hist.Hist(
            hist.axis.StrCategory([], growth=True, name="trigger"),
            hist.axis.Regular(20, 0, 100, name="pt"),
            storage=hist.storage.Weight(),
        )
        muons = events.Muon[events.Muon.pt > self.min_pt]
        chosen = ak.num(muons) > 0
        fired = events.HLT.IsoMu24[chosen]
        leading = muons[chosen][:, 0].pt
        # what the first event of a chunk has fired comes first on the axis
        order = [True, False] if len(fired) and fired[0] else [False, True]
        for fires in order:
            h.fill(trigger="IsoMu24" if fires else "none", pt=leading[fired == fires], weight=0.5)
        sums = {
            "pt": h,
            "cuts": {"all": len(events), "one muon": int(ak.sum(chosen))},
            "sum pt": float(ak.sum(leading)),
        }
        return {events.metadata["dataset"]: sums}

    def postprocess(self, accumulator: Any) -> Any:
        return accumulator
