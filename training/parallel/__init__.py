"""Device meshes, sharding and multi-process set-up."""
