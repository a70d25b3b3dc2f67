"""The settings of the lab that do not follow from its record; see inventories/lab.py."""

cluster_name = "lab"
domain = "lab.example.com"

nodes = {
    # What containers cannot meet: control groups are the machine's, of version 1 on some; Docker
    # answers for names at 127.0.0.11, and no name server stands beside them.
    "ignore_preflight": ["cgroup-v2", "dns-servers", "dns-answers"],
    "parts": {
        # A container shares these with the machine it runs on: its kernel and its memory.
        "kernel_modules": False,
        "sysctl_machine": False,
        "swap": False,
    },
}

# An account elsewhere that a lab has not: what would use it is simulated (tests/lab/README.md).
acme = {"email": "admin@lab.example.com", "dns_provider": "ionos", "server": "staging"}
