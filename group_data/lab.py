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
