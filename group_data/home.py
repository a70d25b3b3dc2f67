"""The settings of the reference cluster; its hosts are in inventories/home.py."""

cluster_name = "home"
domain = "picluster.example.com"  # hosts are node2.picluster.example.com, ...

network = {
    "lan": "10.0.0.0/24",
    "gateway": "10.0.0.1",
    "dns": ["10.0.0.1"],
    # Addresses the DHCP server hands out to guests; hosts and the pool must lie outside.
    "dhcp_range": "10.0.0.32-10.0.0.99",
    # Addresses for Services of type LoadBalancer.
    "load_balancer_pool": "10.0.0.100-10.0.0.200",
    # A virtual address for the Kubernetes API, so that it survives the loss of a server:
    # "api": {"vip": "10.0.0.10", "carrier": "kube-vip", "names": ["api.picluster.example.com"]},
}

# A set of products for all roles (docs/platform.md); one can be exchanged beside it, as in
# {"preset": "v1_9", "logs": "loki"}. Empty: what K3s brings along (Flannel, ServiceLB, Traefik,
# local-path) and nothing on top.
stack = {"preset": "v1_9"}

# Longhorn's volumes go to the data disks, which first boots mount there (first_boot.storage_path).
platform = {"storage": {"path": "/storage"}}

# Where Longhorn, Velero and the databases put their backups: an S3 service outside the cluster.
backup = {"s3_endpoint": "s3.picluster.example.com:9000"}

# The same on a host of ours: take `s3_endpoint` out of `backup`, which then follows from this.
# services = {
#     # Router, firewall, names, leases and time for the LAN, on the host in the group gateway:
#     "gateway": {"wan_interface": "wlan0", "upstream_dns": ["1.1.1.1", "9.9.9.9"]},
#     # On the only host in the group external, with its certificate below (without: our own CA's):
#     "s3": {
#         "path": "/storage/s3",
#         "name": "s3.picluster.example.com",
#         "certificate": "/etc/picluster/certbot/live/s3/fullchain.pem",
#         "key": "/etc/picluster/certbot/live/s3/privkey.pem",
#     },
#     "backup": {"paths": ["/srv"]},  # every host, each night, with restic
#     # Public certificates on the host in the group external, proved by `acme` below:
#     "certbot": {
#         "certificates": [
#             {
#                 "name": "s3",
#                 "names": ["s3.picluster.example.com"],
#                 "reload": ["versitygw.service"],
#             },
#         ],
#     },
#     # Metrics of every host that is no node; logs too with "own_ca": True and
#     # "logs": {"address": "10.0.0.101"} in `platform`:
#     "telemetry": {"logs": False},
#     # Disks of nodes on another host, by iSCSI (docs/services.md says when not to):
#     "san": {"disk": "/dev/sdb", "volumes": {"node2": {"size": "100G", "path": "/volumes"}}},
# }

# Public certificates by Let's Encrypt; without it the cluster's own CA signs.
# acme = {"email": "ada@example.com", "dns_provider": "ionos", "server": "production"}

k3s = {
    "snapshots": {
        "schedule": "0 */6 * * *",  # every six hours
        "retention": 12,  # on each server
        # Copies outside the cluster, in the S3 service of all backups or in another one, for whose
        # keys `make secrets` then asks:
        # "s3": {"endpoint": "s3.picluster.example.com:9000", "bucket": "k3s-etcd"},
    },
}

# What `make images` tells a fresh Ubuntu (docs/first-boot.md); pyinfra logs in with one of the keys
# that it names.
first_boot = {
    # "keys": ["ssh-ed25519 AAAA... ada@laptop"],
    # "release": "26.04",  # of all images, or of one host: "hosts": {"node5": {"release": "26.04"}}
    # "address": "reserved",  # the DHCP server gives each host its address, known by its mac
}

nodes = {
    # Who may log in besides `ssh_user` of group_data/servers.py and others, with their public keys:
    # "users": [{"name": "ada", "keys": ["ssh-ed25519 AAAA... ada@laptop"]}],
    # Raspberry Pis: what is edited on the boot partition is in docs/boot.md.
    # "boot": {"wifi_off": False, "reboots": "never"},
    # Checks of `make doctor` that may fail (docs/hardware.md), such as a server on an SD card:
    # "ignore_preflight": ["root-medium"],
}
