"""The first line of files that are ours as a whole, and folders that several services write to."""

MANAGED = "# Written by picluster from inventory and group_data; changes here are undone.\n"

UNITS = "/etc/systemd/system"
METRICS = "/var/lib/prometheus/node-exporter"  # where Debian's node exporter reads files
