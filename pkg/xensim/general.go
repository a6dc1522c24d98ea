package xensim

// registerGeneral registers what pool, host and the classes without a life of their own do.
func registerGeneral(*Pool) {}
