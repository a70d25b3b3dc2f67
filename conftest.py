"""Root of the test runs: gevent patches first, as pyinfra's own command line does."""

from gevent import monkey

monkey.patch_all()
