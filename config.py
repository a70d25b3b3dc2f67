"""pyinfra's own settings for every run in this folder; it installs the project's run hook."""

import sys

from pyinfra import config

# pyinfra's command switches the cache of bytecode off: all modules would be compiled every time.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

from runtime import run  # noqa: E402

config.REQUIRE_PYINFRA_VERSION = "~=3.10.0"
config.FAIL_PERCENT = 0  # the first failed host stops the run
config.CONNECT_TIMEOUT = 10  # seconds
run.install()
