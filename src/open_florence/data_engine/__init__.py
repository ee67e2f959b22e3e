"""The data engine: a folder of unlabelled images -> dense, audited labels and a model that improves them."""
