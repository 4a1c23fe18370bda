"""One function per task: what the facade and the commands call. Import a task from its own module."""
