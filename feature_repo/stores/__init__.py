"""Feast's offline and online store as Duet configures them: faster, behind Feast's own interfaces."""
