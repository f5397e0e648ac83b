"""What is read from run directories after training."""
