"""EfficientNets: configurations as data, the network, and the registry of named models."""
