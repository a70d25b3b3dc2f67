"""One Raspberry Pi that is a whole cluster. Its settings are in group_data/small.py."""

servers = [("pi", {"ip": "192.168.1.50", "arch": "arm64", "model": "pi5"})]

# This computer: what is done through the Kubernetes API is done from here.
control = ["@local"]
