"""Names of the models, in the groups that tests use."""

TO_B7 = [f"efficientnet_b{i}" for i in range(8)]
LITE = [f"efficientnet_lite{i}" for i in range(5)]
