"""Webhooks: sends the events of orders to servers of their issuers."""
