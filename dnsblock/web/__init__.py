"""Pages for people: the console of operators and issuers."""
