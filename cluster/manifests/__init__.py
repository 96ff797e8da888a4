"""A command or a job in; a file that Kubernetes runs it from out: KubeRay's, Kubeflow's."""
