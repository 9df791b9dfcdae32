"""Downloads, archives, locks, and work on many files at once."""
