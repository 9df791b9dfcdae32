"""From encoded files to pixels that are kept."""
