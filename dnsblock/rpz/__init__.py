"""Response policy zones (draft-vixie-dnsop-dns-rpz-00): zones for other software."""
