"""Whether a person sees an error as it is, and can go on after it."""

import sys


def is_interactive() -> bool:
    """Whether a person has typed the call in a notebook, in IPython or at Python's own prompt."""
    shell = sys.modules.get("IPython")
    return hasattr(sys, "ps1") or (shell is not None and shell.get_ipython() is not None)
