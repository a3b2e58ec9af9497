"""The rules of intake: values in, values out."""
