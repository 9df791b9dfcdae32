"""Image classification experiments with PyTorch Lightning that show what the network sees."""

__version__ = "0.1.0"
