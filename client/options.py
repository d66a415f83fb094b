"""The options of the commands, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from binworks.client import completion

Url = Annotated[str | None, Option("--url", help="Address of the service (or set BINWORKS_URL).")]
Home = Annotated[
    Path | None, Option("--home", help="Home of a service on this machine (or set BINWORKS_HOME).")
]
AsJson = Annotated[bool, Option("--json", help="Print JSON.")]
Job = Annotated[
    str, Argument(metavar="JOB", help="Id of the job.", show_default=False, autocompletion=completion.jobs)
]
Limit = Annotated[int, Option(min=1, help="At most so many.")]

# what a job is asked with
File = Annotated[
    Path | None, Argument(metavar="JOB.json", help="The request as a JSON document.", show_default=False)
]
Processor = Annotated[
    str | None,
    Option("--processor", "-p", help="Name of a processor.", autocompletion=completion.processors),
]
Datasets = Annotated[
    list[str] | None,
    Option(
        "--dataset", "-d", help="Name of a data set; may be repeated.", autocompletion=completion.datasets
    ),
]
AllDatasets = Annotated[bool, Option("--all-datasets", help="All data sets of the catalogue.")]
Corrections = Annotated[str | None, Option("--corrections", "-c", help="Name of a correction set.")]
Systematics = Annotated[
    list[str] | None, Option("--systematics", "-s", help="A variation group; may be repeated; default: all.")
]
ProcessorOptions = Annotated[
    list[str] | None,
    Option("--option", "-o", metavar="KEY=VALUE", help="Of the processor, JSON or text; may be repeated."),
]
Luminosity = Annotated[float | None, Option(help="1/pb; default: the catalogue's.")]
Priority = Annotated[
    int | None, Option(help="-10 to 10; each step doubles the job's share among its owner's.")
]
Skip = Annotated[
    float | None,
    Option(metavar="FRACTION", help="Leave bad input out, up to this part of the events; default: fail."),
]
Label = Annotated[str | None, Option(help="Free text.")]
Key = Annotated[str | None, Option(help="Idempotency key: the same key gives the same job.")]
Reuse = Annotated[
    bool,
    Option("--reuse", help="Take your newest job that has the complete result already, if there is one."),
]
Wait = Annotated[bool, Option("--wait", help="Follow the job until it is finished.")]

# what is looked at or pulled
JobStateOption = Annotated[str | None, Option(help="Only those in this state.")]
UnitStateOption = Annotated[str | None, Option(help="pending, running, done, skipped or failed.")]
Out = Annotated[
    Path, Option("--out", help=".npz: the tensor for a fit. .zip: all sums, as uhi.io.zip reads them.")
]
Format = Annotated[
    str,
    Option(
        "--format",
        "-f",
        help="rabbit, rabbit-sparse, pyhf, uhi-hdf5, uhi-zip or root.",
        autocompletion=completion.formats,
    ),
]
ExportOut = Annotated[
    Path | None, Option("--out", help="The file, or a folder; default: here, as the service calls it.")
]
Card = Annotated[
    Path | None,
    Option(metavar="CARD.json", help="Channels, processes, data, systematics; default: the processor's."),
]
Generation = Annotated[int | None, Option(min=1, help="Number of the snapshot; default: the latest.")]
Owner = Annotated[str | None, Option(help="Somebody else, for admins.")]
AllowPartial = Annotated[bool, Option("--allow-partial", help="Take a snapshot that lacks events, too.")]
