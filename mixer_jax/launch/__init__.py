"""From a laptop to a pod: launches runs on Cloud TPU, GKE and SLURM, and follows, stops and deletes them."""
