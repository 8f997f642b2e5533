"""What an exported .npz holds."""

import json

import numpy as np


def contents(path):
    """Its manifest as plain data, and the network's arrays by name."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("manifest").item()), arrays
