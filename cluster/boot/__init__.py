"""The boot layer of Raspberry Pis: what a board, its files and its disk say, and what follows.

Pure: texts in, frozen data out. What could not be read is an answer of its own
(`cluster.answer`), never taken for "is not there".
"""
