"""Shared by load tests on a real Kafka: records, processes, bare clients, other engines, our worker, tables."""
