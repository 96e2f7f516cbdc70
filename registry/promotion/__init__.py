"""How a release gets into Production and out of it: gates, moves, audit, trial, local copies, and who serves it."""
