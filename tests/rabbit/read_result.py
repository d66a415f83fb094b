"""Turn the result of rabbit_fit into plain arrays, by rabbit's own Python: ``read_result.py RESULT GROUP OUT.npz``."""

import sys

import numpy as np

from rabbit import io_tools

IMPACTS = ("impacts", "impacts_grouped", "global_impacts_grouped")

result = io_tools.get_fitresult(sys.argv[1], sys.argv[2] or None)
parameters = result["parms"].get()
arrays = {
    "names": np.array(parameters.axes[0]).astype(str),
    "values": parameters.values(),
    "uncertainties": np.sqrt(parameters.variances()),
    "chi2": 2 * result["nllvalreduced"],
    "ndf": result["ndfsat"],
}
for name in IMPACTS:
    histogram = result[name].get()
    arrays[name] = histogram.values()[0]
    arrays[name + "_names"] = np.array(histogram.axes["impacts"]).astype(str)
np.savez(sys.argv[3], **arrays)
