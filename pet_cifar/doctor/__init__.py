"""What is wrong with a set of pictures, before any training; nothing of it is changed."""
