"""Lists of names: read from files and feeds, guarded, compiled, and kept with their history."""
