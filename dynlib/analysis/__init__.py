"""From records to tables: what attacks reach, what they cost, which designs help against them, and what becomes of the claims."""
