"""What people judge: a queue, a page to judge it on, and what becomes of their verdicts."""
