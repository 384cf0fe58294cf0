"""The linear algebra behind selection and refits."""
