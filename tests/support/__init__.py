"""What tests stand on: servers, databases, processes, waiting. No test lives here."""
