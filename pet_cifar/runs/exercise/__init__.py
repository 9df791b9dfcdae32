"""The original Keras exercise as one document: its runs, its pictures, and what may be concluded from them."""
