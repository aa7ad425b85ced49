"""TensorFlow Datasets builders, one package each. TensorFlow itself is not needed."""
