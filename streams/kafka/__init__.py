"""Everything that knows Faust or a Kafka client: the shell that puts the engine on Kafka.

In: records of the input topics. Out: records of the output topics, and the engine's state.
Must not know: what a pane, a price or a trigger is. Rule: a shard's state, the offsets it contains and its decisions
are written in one transaction.
"""
