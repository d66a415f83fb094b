"""binworks: from billions of collision events to fit-ready histogram tensors.

The rooms, lowest first; imports go one way only::

    tensors      axes, accumulators, variation groups, ordered sums, expansion, fit
    corrections  event corrections: payloads, loaders, kernels
    processors   what a job computes, one file a channel
    service      the life of a job: plan, driver, workers, ledger, store
    api          the REST front end
    client       the light Python client and the command line (sees ``tensors`` only)
    deploy       where the Dask cluster runs (used by ``service``)
    samples      simulated NanoAOD and the demo's data sets
"""

__version__ = "0.1.0"
