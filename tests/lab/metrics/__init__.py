"""A real Prometheus on the lab: what K3s costs by the defaults of the chart and by our values."""
