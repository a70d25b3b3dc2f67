"""What every cluster starts from. A cluster's own file (group_data/home.py) replaces whole keys.

`network = {...}` in home.py takes the place of the whole `network` here, it is not merged.
Every possible key, its default and its meaning: docs/configuration.md.
"""

timezone = "Etc/UTC"
locale = "C.UTF-8"
