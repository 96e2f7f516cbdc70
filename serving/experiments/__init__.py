"""Comparing two releases on live requests: who gets which, and ranking in the shadow without showing it."""
