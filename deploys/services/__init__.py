"""Services around the cluster, each a deploy of its own that site.py calls too."""
