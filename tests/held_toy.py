"""A toy that takes as long over each unit as a file says: a job is still at work when a test wants it to be."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from service_toys import Toy

from binworks.processors.columns import Columns
from binworks.processors.dataset import Dataset
from binworks.tensors.accumulator import Accumulator

PACE = "pace"
FOLDER = Path("/data")


def set_pace(folder: Path, seconds: float) -> None:
    """Say how long units take from now on, those that are under way included."""
    draft = folder / f"{PACE}.new"
    draft.write_text(str(seconds))
    draft.replace(folder / PACE)


class Held(Toy):
    """Fills what the toy fills, later."""

    def fill(self, columns: Columns, dataset: Dataset, accumulator: Accumulator) -> None:
        begun = time.monotonic()
        with suppress(FileNotFoundError):
            while time.monotonic() - begun < float((FOLDER / PACE).read_text()):
                time.sleep(0.05)
        super().fill(columns, dataset, accumulator)
