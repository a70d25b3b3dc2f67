"""pyinfra's own settings for every run in this folder; it installs the project's run hook."""

from pyinfra import config

from runtime import run

config.REQUIRE_PYINFRA_VERSION = "~=3.10.0"
config.FAIL_PERCENT = 0  # the first failed host stops the run
config.CONNECT_TIMEOUT = 10  # seconds
run.install()
