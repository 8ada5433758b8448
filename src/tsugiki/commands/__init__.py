"""Commands beyond the stages themselves; each module is imported only when its command is called."""
