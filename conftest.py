"""Root of the test runs: gevent patches first, as pyinfra's own command line does."""

from gevent import monkey

monkey.patch_all()

from hypothesis import HealthCheck, settings  # noqa: E402

# A busy machine is slow now and then: no example fails for the time it takes.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
