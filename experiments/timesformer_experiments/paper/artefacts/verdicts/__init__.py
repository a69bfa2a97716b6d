"""What the probes say of the paper's claims."""
