"""The network: it imports only PyTorch and its own folder, and can be lifted out as it is."""
