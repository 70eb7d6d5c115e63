"""Methods that blend whole models, in straight lines or on spheres."""
