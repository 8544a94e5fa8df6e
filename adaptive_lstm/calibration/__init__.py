"""Choose a policy, and prove what it costs."""
