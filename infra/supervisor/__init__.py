"""Start, watch and stop the processes of a platform on one machine; knows nothing of what they do.

`spec` says what a process is, `supervisor` runs a set of them, `state` tells other commands about it,
`stack` lists the processes of Duet and `platform` ties them to one data directory.
"""
