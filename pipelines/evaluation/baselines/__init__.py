"""Published simpler ways to order people, that the two stages have to beat: plain functions on a like matrix.

A like matrix is CSR [n, n]: row u holds a one for everybody u likes. Scores are for aligned pairs of positions.
"""
