"""Events to decisions: decode, time, panes, alerts, replenishment and the engine that composes them."""
