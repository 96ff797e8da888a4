"""Where scripts from before the rooms had sub-packages find `import_torch`."""

from headstart.export.networks.torch.stack import import_torch

__all__ = ["import_torch"]
