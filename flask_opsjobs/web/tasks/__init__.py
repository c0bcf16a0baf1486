"""Shows the numbers of all tasks, and the page of one."""
