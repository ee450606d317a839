"""`make bench`: dnsblock, bare socket loops and other resolvers under the same load.

`python -m bench --help` lists the options; docs/performance.md explains the figures.
"""
