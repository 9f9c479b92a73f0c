"""What reading costs, on a store of a hundred million samples: in the server and over HTTP, each with its limit."""
