"""The verbs that copy stores between disks and URLs, and list them."""
