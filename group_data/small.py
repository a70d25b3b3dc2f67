"""The settings of the one-node cluster; its host is in inventories/small.py."""

cluster_name = "small"
domain = "home.arpa"

network = {
    "lan": "192.168.1.0/24",
    "gateway": "192.168.1.1",
    "dns": ["192.168.1.1"],
}
