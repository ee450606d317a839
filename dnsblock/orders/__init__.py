"""Orders: from an authority's document to the entries in force at a time.

`order` parses a document, `schema` checks its fields, and `intake` judges a folder of documents. `ledger`
stores accepted orders, `orders` combines its records, and `state` derives the entries in force from them.
"""
