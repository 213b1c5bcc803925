"""Reading rows: files, Hugging Face datasets and built-in data, brought to one chat schema.

`schema` turns one record into messages, `read` reads a whole source. They are not imported
here, so that the schema alone stays cheap to import.
"""
