"""Published runs that the planner is checked against."""
