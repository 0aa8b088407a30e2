"""From records to tables: what attacks reach, what they cost, which designs withstand them, and what becomes of the claims."""
