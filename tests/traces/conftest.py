"""Settings of the tests of traces."""

from hypothesis import settings

settings.register_profile("traces", deadline=None)  # the first example of a decoder compiles it
settings.load_profile("traces")
