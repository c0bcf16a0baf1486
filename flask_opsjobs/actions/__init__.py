"""What an operator may do: plan, preview, reason, execute, audit."""
