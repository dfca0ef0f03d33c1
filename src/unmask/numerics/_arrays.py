"""Short names for the array types that the signatures of this package use."""

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]
Uint8 = NDArray[np.uint8]
Uint16 = NDArray[np.uint16]
Uint32 = NDArray[np.uint32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
