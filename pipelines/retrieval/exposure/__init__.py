"""Exposure prices: nobody is shown more often than they can answer, at a stated loss of matches."""
