"""The versions of each list: what each one changed, and when it was in force."""
