"""Where the Dask cluster runs: one file a back end, all behind the five methods of `binworks.deploy.base`."""
