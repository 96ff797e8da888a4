"""Parameters of another system in; headstart's own commands run out: MLflow projects, Kubeflow."""
