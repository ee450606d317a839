"""Pages for people: the console of operators and issuers, and the landing page."""
