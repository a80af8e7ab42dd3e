"""Where scores come from: rules, and the weighted sum of several sources."""
