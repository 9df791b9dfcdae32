"""The pictures of a run in TensorBoard: one picture a file."""
