"""Messages of the API to frozen values and back: one file a service, the two directions of a pair side by side.

Reading checks each field by itself (`sysproc.server.validate`); a message that cannot be read is InvalidArgument.
Which verb is given the values is in the servicers. What is not needed as a value is read by the servicer as it is.
"""
