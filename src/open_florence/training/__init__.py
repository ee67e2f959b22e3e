"""Training: samples become batches, aids that fold away at export help a small model learn, one loop runs it all."""
