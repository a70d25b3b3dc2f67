"""Services around the cluster: for each its section of the model and the texts that follow."""
