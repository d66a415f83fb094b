"""What a job computes: columns, selections, kernels; one file a channel. No Dask, no HTTP, no database."""
