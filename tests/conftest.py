"""What all tests share. That this file is here puts this folder on the path, and with it
`launching_for_tests`."""
