"""Lists of names: reading them from files and feeds, guards, compilation, and their history."""
