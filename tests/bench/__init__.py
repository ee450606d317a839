"""`make bench`: dnsblock beside bare socket loops and beside other resolvers, all under the same load.

`python -m bench --help` says what can be chosen; docs/performance.md says how to read what comes out.
"""
