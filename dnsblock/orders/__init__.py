"""What was ordered: from the document a ministry sends to what is in force at a time.

`order` reads a document, `guards` judges its names, `intake` judges a folder of them, `ledger` keeps what was
accepted, and `state` derives from it what is in force.
"""
