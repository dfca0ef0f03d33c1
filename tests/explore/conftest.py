"""The `unmask` command."""

from tests.cli.conftest import unmask

__all__ = ["unmask"]
