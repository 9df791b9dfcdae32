"""The pictures of a run in TensorBoard, with one file for each kind of picture."""
