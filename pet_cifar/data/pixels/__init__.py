"""Turns encoded files into pixels, and keeps them."""
