"""Libraries that only a search needs, imported when it begins."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

from unmask.errors import UnmaskError


@cache
def optuna() -> Any:
    """The module `optuna`, silent.

    Raises:
        UnmaskError: it is not installed.
    """
    try:
        import optuna as library
    except ImportError:
        raise UnmaskError("a search needs Optuna: pip install 'unmask[search]'") from None
    library.logging.set_verbosity(library.logging.ERROR)
    warnings.filterwarnings("ignore", category=library.exceptions.ExperimentalWarning)
    return library


def distributed() -> Any:
    """The module `distributed`.

    Raises:
        UnmaskError: it is not installed.
    """
    try:
        import distributed as library
    except ImportError:
        raise UnmaskError("--cluster needs Dask: pip install 'unmask[cluster]'") from None
    return library
