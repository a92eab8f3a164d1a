"""What the course asks of a trained model, each one picture of its run."""
