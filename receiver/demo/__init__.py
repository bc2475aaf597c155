"""`billhook demo`: all of Billhook on this machine, on sample deliveries; what happens is shown and checked."""
