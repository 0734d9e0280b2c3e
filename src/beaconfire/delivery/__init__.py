"""Fan-out: from a publication to the outboxes of its local subscribers. Everything here is synchronous."""
