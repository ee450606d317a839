"""The landing page: the program that the daemon starts as `dnsblock.web.landing`, in a process of its own."""
