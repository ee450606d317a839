"""The console: web pages over HTTPS for the provider's operators and for the officers of issuers."""
