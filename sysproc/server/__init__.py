"""gRPC only: who calls, what they may, messages to values and back, wiring. The verbs are the modules above."""
