"""Read files as rabbit does and print what it takes them for, a line of JSON each: ``read_input.py FILE...``."""

import json
import sys

import numpy as np
import tensorflow as tf

from rabbit.inputdata import FitInputData

for path in sys.argv[1:]:
    found = FitInputData(path)
    dense = [tf.sparse.to_dense(part) if found.sparse else part for part in (found.norm, found.logk)]
    about = {
        "sparse": found.sparse,
        "symmetric": found.symmetric_tensor,
        "channels": {
            name: [[axis.name for axis in info["axes"]], info["start"], info["stop"]]
            for name, info in found.channel_info.items()
        },
        "sums": [float(np.sum(part)) for part in dense],
        "size": int(tf.size(dense[1])),
    }
    sys.stdout.write("INPUT " + json.dumps(about) + "\n")
