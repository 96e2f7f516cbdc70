"""Takes a backup of everything that cannot be made anew, and restores it onto an empty installation."""
