"""Programs: the verbs, configuration and Lightning; the only place where stores, extract and heads meet."""
