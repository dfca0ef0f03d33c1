"""Property tests here have no deadline: the first example of a test builds tables, and the machine may be busy."""

from hypothesis import settings

settings.register_profile("numerics", deadline=None)
settings.load_profile("numerics")
