"""Skills of attention schemes, what each can and cannot see: registered predictions, runs, and what they showed."""
