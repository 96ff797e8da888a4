"""A command in; a file that another system runs it from out: KubeRay's YAML so far."""
