"""The versions of each list: the changes of each, and when it was in force."""
