"""The first line of files that are ours as a whole."""

MANAGED = "# Written by picluster from inventory and group_data; changes here are undone.\n"
