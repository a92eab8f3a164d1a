"""The networks of the models: modules that compute numbers and know nothing of probability."""
