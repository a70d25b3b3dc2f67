"""The reference cluster: three Raspberry Pi servers, two Raspberry Pi and three PC agents.

The name of a group says what its hosts are for, the name of a host is its node name. Each host has
its address (`ip`), the address of its network card (`mac`), its processor (`arch`: arm64 or amd64)
and its disks. Settings of the whole cluster are in group_data/home.py.
"""

# The router of the cluster's network: DHCP, DNS, time.
gateway = [
    ("gateway", {"ip": "10.0.0.1", "mac": "00:00:5e:00:53:01", "arch": "arm64", "model": "pi4"}),
]

# Outside the cluster, for services it depends on.
external = [
    ("node1", {"ip": "10.0.0.11", "mac": "00:00:5e:00:53:11", "arch": "arm64", "model": "pi4"}),
]

# Control plane: one, three or five hosts.
servers = [
    (
        "node2",
        {
            "ip": "10.0.0.12",
            "mac": "00:00:5e:00:53:12",
            "arch": "arm64",
            "model": "pi4",
            "boot_disk": "/dev/sda",
            "data_disk": "/dev/sda3",
        },
    ),
    (
        "node3",
        {
            "ip": "10.0.0.13",
            "mac": "00:00:5e:00:53:13",
            "arch": "arm64",
            "model": "pi4",
            "boot_disk": "/dev/sda",
            "data_disk": "/dev/sda3",
        },
    ),
    (
        "node4",
        {
            "ip": "10.0.0.14",
            "mac": "00:00:5e:00:53:14",
            "arch": "arm64",
            "model": "pi4",
            "boot_disk": "/dev/sda",
            "data_disk": "/dev/sda3",
        },
    ),
]

# Nodes for pods alone; servers take them too, unless k3s.control_plane_taint keeps them off.
agents = [
    (
        "node5",
        {
            "ip": "10.0.0.15",
            "mac": "00:00:5e:00:53:15",
            "arch": "arm64",
            "model": "pi4",
            "boot_disk": "/dev/sda",
            "data_disk": "/dev/sda3",
        },
    ),
    (
        "node6",
        {
            "ip": "10.0.0.16",
            "mac": "00:00:5e:00:53:16",
            "arch": "arm64",
            "model": "pi4",
            "boot_disk": "/dev/sda",
            "data_disk": "/dev/sda3",
        },
    ),
    (
        "node-hp-1",
        {
            "ip": "10.0.0.20",
            "mac": "00:00:5e:00:53:20",
            "arch": "amd64",
            "model": "HP EliteDesk 800 G3 mini",
            "boot_disk": "/dev/sda",
            "data_disk": "/dev/ubuntu-vg/lv-data",
        },
    ),
    (
        "node-hp-2",
        {
            "ip": "10.0.0.21",
            "mac": "00:00:5e:00:53:21",
            "arch": "amd64",
            "model": "HP EliteDesk 800 G3 mini",
            "boot_disk": "/dev/nvme0n1",
            "data_disk": "/dev/ubuntu-vg/lv-data",
        },
    ),
    (
        "node-hp-3",
        {
            "ip": "10.0.0.22",
            "mac": "00:00:5e:00:53:22",
            "arch": "amd64",
            "model": "HP EliteDesk 800 G3 mini",
            "boot_disk": "/dev/nvme0n1",
            "data_disk": "/dev/ubuntu-vg/lv-data",
        },
    ),
]

# This computer: what is done through the Kubernetes API is done from here.
control = ["@local"]
