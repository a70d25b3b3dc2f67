"""The settings of the lab that do not follow from its record; see inventories/lab.py."""

cluster_name = "lab"
domain = "lab.example.com"

nodes = {
    # Where Docker's machine has control groups of version 1, its containers have them too.
    "ignore_preflight": ["cgroup-v2"],
    "parts": {
        # A container shares these with the machine it runs on: its kernel and its memory.
        "kernel_modules": False,
        "sysctl_machine": False,
        "swap": False,
    },
}

# Accounts elsewhere that a lab has not: what would use them is simulated (tests/lab/README.md).
backup = {"s3_endpoint": "s3.lab.example.com:9000"}
acme = {"email": "admin@lab.example.com", "dns_provider": "ionos", "server": "staging"}
