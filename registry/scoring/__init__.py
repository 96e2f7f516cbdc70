"""The two-stage path: candidate sources, merging, pair context, ranking. Serving, trial, replay and evaluation call it.

Everything here is a plain function of a release, a population, a requester and an instant; nothing waits for anybody.
"""
