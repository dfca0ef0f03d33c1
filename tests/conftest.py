"""Settings of all tests."""

from hypothesis import settings

# How long an example takes says nothing on a shared machine; the first one often pays for an import.
settings.register_profile("unmask", deadline=None)
settings.load_profile("unmask")
