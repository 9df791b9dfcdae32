"""One dataset a file: where its pictures are, and what is special about them."""
