"""How runs begin, by hand or by themselves, where their steps work, and how they end."""
